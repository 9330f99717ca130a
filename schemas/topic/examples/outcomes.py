"""Prints the outcomes that are in the topic now: partition, offset, token, event, verdict, reason.

    python3 outcomes.py BROKERS TOPIC SCHEMAS [IDS]

SCHEMAS is the folder schemas/event of this repository. IDS is the file of -schema-ids, if there is a
schema registry; without one it is ids.json in SCHEMAS. Needs kafka-python, python-snappy and fastavro.
"""

import io
import json
import pathlib
import struct
import sys

import fastavro
from kafka import KafkaConsumer, TopicPartition


def read_schemas(folder, ids):
    """The schemas with which outcomes were written, by their id on the wire."""
    return {
        i["id"]: fastavro.parse_schema(json.loads((folder / f"outcome.v{i['version']}.avsc").read_text()))
        for i in json.loads(ids.read_text())
        if i["record"] == "Outcome"
    }


def decode(value, written):
    magic, schema_id = struct.unpack(">bI", value[:5])  # 0x00, then the schema id, big-endian
    if magic != 0 or schema_id not in written:
        raise ValueError(f"schema id {schema_id}")
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), written[schema_id], None)


def main(brokers, topic, schemas, ids=None):
    folder = pathlib.Path(schemas)
    written = read_schemas(folder, pathlib.Path(ids) if ids else folder / "ids.json")
    consumer = KafkaConsumer(
        bootstrap_servers=brokers.split(","),
        # Without this a reader books verdicts that were aborted and will be judged again.
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    while any(consumer.position(p) < ends[p] for p in partitions):
        for records in consumer.poll(timeout_ms=1000).values():
            for r in records:
                o = decode(r.value, written)
                print(r.partition, r.offset, r.key.decode(), o["event_id"], o["verdict"], o["reason"], sep="\t")
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
