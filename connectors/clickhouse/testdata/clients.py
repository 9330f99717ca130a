"""What clickhouse-connect does with a server, as it is installed: one line for each."""
import decimal
import sys

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

host, port, database = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def connect(**options):
    return clickhouse_connect.get_client(host=host, port=port, database=database, **options)


def refused(do):
    try:
        do()
    except DatabaseError as problem:
        return str(problem).split("code: ")[1].split(",")[0]
    return "nothing"


one, two = connect(), connect()
print("rows", one.query("SELECT number, toString(number) FROM numbers(100000)").row_count)
summary = one.query("SELECT number FROM numbers(7)").summary
print("summary", summary["result_rows"], summary["read_rows"])

one.command("SET max_threads = 3")
print("session setting", one.command("SELECT getSetting('max_threads') = 3"),
      two.command("SELECT getSetting('max_threads') = 3"))
print("request setting", one.query("SELECT getSetting('max_threads')", settings={"max_threads": 2}).result_rows,
      one.command("SELECT getSetting('max_threads')"))
print("readonly", one.query("SELECT 1", settings={"readonly": 1}).result_rows,
      refused(lambda: one.command("CREATE TABLE ro (a Int64) ENGINE = Memory", settings={"readonly": 1})))

one.command("CREATE TEMPORARY TABLE basket (id Int64, price Decimal(38, 2))")
one.insert("basket", [[1, decimal.Decimal("1.50")], [2, decimal.Decimal("-0.25")]], column_names=["id", "price"])
print("temporary table", one.query("SELECT sum(id), sum(price) FROM basket").result_rows,
      refused(lambda: two.query("SELECT * FROM basket")))
print("readonly beside it", one.query("SELECT sum(id) FROM basket", settings={"readonly": 1}).result_rows,
      refused(lambda: one.command("DROP TABLE basket", settings={"readonly": 1})))
print("an error", refused(lambda: one.query("SELECT nosuch")), one.command("SELECT count() FROM basket"))

one.command("CREATE TABLE lasting (id Int64, name String) ENGINE = MergeTree ORDER BY id")
print("inserted", one.insert("lasting", [[n, "n"] for n in range(1000)], column_names=["id", "name"]).written_rows)
print("joined", one.command("SELECT count() FROM lasting INNER JOIN basket ON lasting.id = basket.id"))
print("data frame", two.query_df("SELECT sum(id) AS s FROM lasting").s[0],
      two.query_arrow("SELECT sum(id) AS s FROM lasting").to_pylist()[0]["s"],
      two.insert_df("lasting", two.query_df("SELECT * FROM lasting LIMIT 3")).written_rows)

table = ExternalData(file_name="ext", data=b"1\tx\n2\ty\n", fmt="TSV", structure=["a Int64", "s String"])
print("external table", one.query("SELECT sum(a), max(s) FROM ext", external_data=table).result_rows,
      two.query("SELECT sum(a), max(s) FROM ext", external_data=table).result_rows,
      refused(lambda: one.query("SELECT * FROM ext")))
print("form", connect(form_encode_query_params=True).query("SELECT {x:String}", parameters={"x": "it's"}).result_rows)
for compress in ("lz4", "zstd", "gzip", False):
    client = connect(compress=compress)
    client.insert("lasting", [[1, "x" * 1000]] * 1000, column_names=["id", "name"])
    print("compress", compress, client.query("SELECT name FROM lasting WHERE length(name) > 1").row_count)
