package kafkatest

import (
	"bytes"
	"context"
	"os"
	"strings"
)

// toolsSum and toolsProject are Kafka's command line tools; what they need beside their
// own jar, a broker has.
const (
	toolsSum = "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c" +
		"  kafka-tools-" + kafkaVersion + ".jar"
	toolsProject = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>tools</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>` + kafkaVersion + `</version>
    <exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>
  </dependency></dependencies>
</project>
`
)

// The classes behind Kafka's scripts.
const (
	KafkaTopics         = "org.apache.kafka.tools.TopicCommand"                        // kafka-topics.sh
	KafkaConsumerGroups = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand" // kafka-consumer-groups.sh
)

// RunTool runs one of Kafka's own tools against the first node, as an operator would, and
// returns what it printed. It skips the test, or fails it, as Real does.
func (b *RealBroker) RunTool(class string, args ...string) string {
	b.t.Helper()
	jar, err := ensureFiles(b.t.Context(), cacheDir(), "tools", kafkaVersion, toolsSum,
		func(ctx context.Context, dir string) error { return copyDependencies(ctx, toolsProject, dir) })
	requireTool(b.t, err)
	with := *b
	with.kafka.classPath = strings.Join(append(jar, b.kafka.classPath), string(os.PathListSeparator))
	with.kafka.classes = "" // they are those of another class path
	n := b.nodes[0]
	var said bytes.Buffer
	args = append([]string{"--bootstrap-server", n.address()}, args...)
	c, err := startChild(with.javaCommand(n, &said, class, args...))
	if err == nil {
		<-c.done
		err = c.err
	}
	if err != nil {
		b.t.Fatalf("%s %s: %v: %s", class, strings.Join(args, " "), err, said.String())
	}
	return said.String()
}
