import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Collectors;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints the outcomes that are in the topic now: partition, offset, token, event, verdict, reason.
 *
 *     java -cp kafka-clients.jar:avro.jar:jackson….jar:slf4j….jar Outcomes.java BROKERS TOPIC SCHEMAS [IDS]
 *
 * SCHEMAS is the folder schemas/event of this repository. IDS is the file of -schema-ids, if there is
 * a schema registry; without one it is ids.json in SCHEMAS.
 */
public class Outcomes {
    public static void main(String[] args) throws Exception {
        Path schemas = Path.of(args[2]);
        Map<Integer, Schema> written = readSchemas(schemas, args.length > 3 ? Path.of(args[3]) : schemas.resolve("ids.json"));

        Properties settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        // Without this a reader books verdicts that were aborted and will be judged again.
        settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");

        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = consumer.partitionsFor(args[1]).stream()
                .map(p -> new TopicPartition(p.topic(), p.partition())).collect(Collectors.toList());
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<String, byte[]> r : consumer.poll(Duration.ofSeconds(1))) {
                    print(r, written);
                }
            }
        }
    }

    static void print(ConsumerRecord<String, byte[]> r, Map<Integer, Schema> written) throws Exception {
        ByteBuffer framing = ByteBuffer.wrap(r.value());
        int magic = framing.get(), id = framing.getInt(); // 0x00, then the schema id, big-endian
        Schema schema = written.get(id);
        if (magic != 0 || schema == null) {
            throw new IllegalStateException("partition " + r.partition() + " offset " + r.offset() + ": schema id " + id);
        }
        var body = new ByteArrayInputStream(r.value(), 5, r.value().length - 5);
        GenericRecord o = new GenericDatumReader<GenericRecord>(schema)
            .read(null, DecoderFactory.get().binaryDecoder(body, null));
        System.out.println(String.join("\t", "" + r.partition(), "" + r.offset(), r.key(), "" + o.get("event_id"),
            "" + o.get("verdict"), "" + o.get("reason")));
    }

    /** The schemas with which outcomes were written, by their id on the wire. */
    static Map<Integer, Schema> readSchemas(Path folder, Path ids) throws Exception {
        Map<Integer, Schema> written = new HashMap<>();
        for (JsonNode id : new ObjectMapper().readTree(ids.toFile())) {
            if (id.get("record").asText().equals("Outcome")) {
                String file = "outcome.v" + id.get("version").asInt() + ".avsc";
                written.put(id.get("id").asInt(), new Schema.Parser().parse(folder.resolve(file).toFile()));
            }
        }
        return written;
    }
}
