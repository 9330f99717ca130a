"""Adds up the money of every view as it leaves in each format, by readers of other people."""
import csv
import io
import json
import sys
from collections import defaultdict
from decimal import Decimal

import clickhouse_connect
import duckdb
import pandas
import polars
import pyarrow
import pyarrow.ipc

client = clickhouse_connect.get_client(host=sys.argv[1], port=int(sys.argv[2]), database=sys.argv[3])
views = client.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'")
out = defaultdict(lambda: defaultdict(dict))
TEXTS = ("amount", "net_amount", "standing_change", "estimated_reward")


def is_money(name):
    return name.endswith("_minor") or name in TEXTS


def add(values):
    return str(sum((Decimal(str(v)) for v in values if v not in (None, "") and v == v), Decimal(0)))


for (view,) in views.result_rows:
    source = view + "(tz = 'Europe/Berlin')" if view.endswith("_days") else view

    def read(fmt):
        return client.raw_query(f"SELECT * FROM {source} FORMAT {fmt}")

    parquet = read("Parquet")
    with open(sys.argv[4], "wb") as file:
        file.write(parquet)
    frames = {
        "polars": polars.read_parquet(io.BytesIO(parquet)),
        "pandas": pandas.read_parquet(io.BytesIO(parquet)),
        "arrow": pyarrow.ipc.open_stream(read("ArrowStream")).read_all(),
        "connect": client.query_df(f"SELECT * FROM {source}"),
    }
    rows = [json.loads(line) for line in read("JSONEachRow").decode().splitlines()]
    cells = list(csv.DictReader(io.StringIO(read("CSVWithNames").decode())))
    raw = [f.name for f in frames["arrow"].schema if "binary" in str(f.type)]
    raw += [c for c, t in frames["polars"].schema.items() if "Binary" in str(t)]
    if raw:
        out[view]["raw bytes in " + ", ".join(raw)] = {"x": "x", "y": "y"}
    names = frames["polars"].columns
    for name in filter(is_money, names):
        sums = out[view][name]
        if name in TEXTS:
            sums["duckdb"] = add(duckdb.sql(f"SELECT sum({name}::DECIMAL(38, 4)) FROM '{sys.argv[4]}'").fetchall()[0])
        else:
            sums["duckdb"] = add(duckdb.sql(f"SELECT sum({name})::VARCHAR FROM '{sys.argv[4]}'").fetchall()[0])
        sums["polars"] = add(frames["polars"][name].to_list())
        sums["pandas"] = add(v for v in frames["pandas"][name] if not pandas.isna(v))
        sums["arrow"] = add(frames["arrow"][name].to_pylist())
        sums["connect"] = add(v for v in frames["connect"][name] if not pandas.isna(v)) if len(rows) else "0"
        sums["json"] = add(r[name] for r in rows)
        sums["csv"] = add(c[name] for c in cells if c[name] != "\\N")
    out[view].setdefault("rows", {"csv": str(len(cells)), "json": str(len(rows))})
print(json.dumps({v: {c: {k: format(Decimal(s).normalize(), "f") if s not in ("x", "y") else s for k, s in f.items()}
                  for c, f in columns.items()} for v, columns in out.items()}))
