import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Base64;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

/**
 * Prints the partition of each key on standard input, in base64, by Kafka's own partitioner: a column
 * for each partition count that is given.
 */
public class Partitions {
    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in));
        var out = new StringBuilder();
        for (String line; (line = in.readLine()) != null; ) {
            byte[] key = Base64.getDecoder().decode(line);
            for (String count : args) {
                out.append(BuiltInPartitioner.partitionForKey(key, Integer.parseInt(count))).append(' ');
            }
            out.append('\n');
        }
        System.out.print(out);
    }
}
