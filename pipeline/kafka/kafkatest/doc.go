// Package kafkatest gives tests a broker: a fresh kfake, or Apache Kafka itself. A fake
// server, never a mocked client.
//
//   - Broker and Cluster start a kfake with all our topics, unprefixed: milliseconds,
//     and every test its own.
//   - Real starts Apache Kafka 4.3.1 (KRaft, broker and controller in one JVM) as a
//     child process that the test can kill and start again: 3 to 4 seconds.
//   - Alone is Real with no other Apache Kafka of ours beside it; Three is Alone with
//     three nodes, of which single ones can be killed.
//   - Secured is Real with TLS, logins and an authorizer; an Authority signs the
//     certificates.
//   - Each runs one test against both, under a prefix.
//
// # What Real promises
//
// The child listens on loopback alone and ends with its test, and with the test's
// process however that ends (Linux; elsewhere a SIGKILL of the test leaves it behind).
// What it logged is kept, and its last lines are printed, if the test failed. Nothing
// is left otherwise.
//
// Its jars (44 MB) come from Maven (`mvn dependency:copy-dependencies`, so the user's
// mirrors and proxies apply), once, into the user's cache directory; each one is held
// against kafka.sha256 in every process. Beside them is kept what a broker was once
// started and stopped for: an archive of the classes as the JVM has them in memory, which
// halves the work of a start, and what Kafka's format command writes, which costs a JVM.
//
// # Environment
//
//   - PARTNERS_REQUIRE_KAFKA=1: a machine on which Real cannot run fails the test,
//     instead of skipping it with the reason.
//   - PARTNERS_TEST_LONG=1: Three is tested too.
//   - PARTNERS_TEST_KAFKA=host:port,…: Each uses this running cluster instead of a
//     child, under a prefix of its own that is deleted afterwards. Real does not: it
//     never kills a cluster that others use.
//
// # Non-obvious
//
//   - Ports are chosen below the kernel's range for outgoing connections. Inside of it,
//     a client that dials the port of a killed broker may be given that very port as
//     its own: it then talks to itself, and the broker cannot come back.
//   - A broker that was SIGKILLed is back after 5 to 7 seconds: the controller believes
//     in the dead one until broker.session.timeout.ms (3 s here, 9 s by default) is
//     over.
//   - A kill within milliseconds after the answer to EndTxn may lose that transaction:
//     it hangs in the log (the last stable offset stops, OffsetFetch answers
//     UNSTABLE_OFFSET_COMMIT). Kafka 4.3 drops the markers of partitions that have no
//     leader for a moment, and in a cluster of one node all of them have none when the
//     dead registration is fenced. It logs "likely deleted already". With a live
//     replica there is always a leader.
//   - The JVM gets the C1 compiler and the serial collector: it lives for seconds, and
//     nothing may be measured on it.
package kafkatest
