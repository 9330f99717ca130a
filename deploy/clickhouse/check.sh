#!/usr/bin/env bash
# Asks a ClickHouse server, once, whether it keeps each promise that an embedded ClickHouse cannot show: roles, row policies, the native protocol, replicated tables, deduplication through views.
# Prints "yes" or "no" for each, and fails if there is a no. What it makes is named partners_check… and removed at the end; it also makes the three roles of `ctl migrate`, which stay.
#
#   PARTNERS_CHECK_URL       HTTP address, http://clickhouse:8123 (required)
#   PARTNERS_CHECK_NATIVE    address of the native protocol, clickhouse:9000 (required)
#   PARTNERS_CHECK_USER      a user with access management; default
#   PARTNERS_CHECK_PASSWORD  its password, without characters that an address cannot hold; empty
#   PARTNERS_CHECK_CTL       the program ctl; ctl
#   PARTNERS_CHECK_ENGINES   mergetree, replicated, or both; both. replicated needs Keeper and the macros {shard} and {replica}
set -uo pipefail

url=${PARTNERS_CHECK_URL:?is the HTTP address, http://clickhouse:8123}
native=${PARTNERS_CHECK_NATIVE:?is the address of the native protocol, clickhouse:9000}
admin=${PARTNERS_CHECK_USER:-default}
password=${PARTNERS_CHECK_PASSWORD:-}
ctl=${PARTNERS_CHECK_CTL:-ctl}
engines=${PARTNERS_CHECK_ENGINES:-mergetree replicated}

secret=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
run=partners_check_$(od -An -tx1 -N4 /dev/urandom | tr -d ' \n')
db=$run
failed=0

yes() { printf 'yes  %s\n' "$1"; }
no() {
  printf 'no   %s: %s\n' "$1" "$(printf %s "$2" | tr '\n' ' ' | cut -c1-300)"
  failed=1
}

# ask USER STATEMENT: the answer, or the server's error and a status that is not 0.
ask() {
  local who=$1 key=$secret
  [ "$who" = "$admin" ] && key=$password
  curl -sS --fail-with-body --max-time 60 -u "$who:$key" "$url/?database=$db" --data-binary "$2" 2>&1
}

# holds NAME WANT USER QUERY: yes if the answer is WANT.
holds() {
  local got
  if got=$(ask "$3" "$4") && [ "$got" = "$2" ]; then yes "$1"; else no "$1" "got $got, want $2"; fi
}

# refused NAME USER STATEMENT: yes if the user has no right to it.
refused() {
  local got
  if got=$(ask "$2" "$3"); then no "$1" "it is allowed, and answers $got"; return; fi
  case $got in
    *'Code: 497'*) yes "$1" ;;
    *) no "$1" "$got" ;;
  esac
}

# must NAME USER STATEMENT: yes if it can be done.
must() {
  local got
  if got=$(ask "$2" "$3"); then yes "$1"; else no "$1" "$got"; fi
}

# migrate NAME ADDRESS ENGINE: yes if ctl makes the database.
migrate() {
  local got
  if got=$(PARTNERS_CLICKHOUSE="$2" "$ctl" migrate -engine "$3" 2>&1); then yes "$1"; else no "$1" "$got"; fi
}

remove() {
  local name
  db=system
  for name in acme globex nobody writer service; do ask "$admin" "DROP USER IF EXISTS ${run}_$name" >/dev/null; done
  for name in acme globex; do ask "$admin" "DROP ROLE IF EXISTS partners_workspace_${run}_$name" >/dev/null; done
  for db_name in "$run" "${run}_replicated" "${run}_http"; do
    ask "$admin" "SELECT short_name || ' ON $db_name.' || table FROM row_policies WHERE database = '$db_name' FORMAT TSVRaw" 2>/dev/null |
      while read -r policy; do case $policy in partners_*) ask "$admin" "DROP ROW POLICY IF EXISTS $policy" >/dev/null ;; esac; done
    ask "$admin" "REVOKE ALL ON $db_name.* FROM partners_reader, partners_writer, partners_every_workspace" >/dev/null
    # an old server has no SYNC
    ask "$admin" "DROP DATABASE IF EXISTS $db_name SYNC" >/dev/null || ask "$admin" "DROP DATABASE IF EXISTS $db_name" >/dev/null
  done
}
trap remove EXIT

# clicks TOKEN: inserts two clicks, one of each workspace, under a deduplication token.
clicks() {
  printf %s "INSERT INTO clicks (workspace_id, src_partition, src_offset, clicked_at, arrived_at) SETTINGS insert_deduplication_token = '$1', deduplicate_blocks_in_dependent_materialized_views = 1, insert_deduplicate = 1, async_insert = 0 SELECT ['${run}_acme', '${run}_globex'][number + 1], 0, number, toDateTime64('2026-03-14 10:00:00', 3, 'UTC') AS at, at FROM numbers(2)"
}

# deduplicates ENGINE: an insert that is repeated under its token counts once, in the table and through the views; under another token it counts again.
deduplicates() {
  ask "$admin" "$(clicks first)" >/dev/null
  must "$1: an insert can be repeated" "$admin" "$(clicks first)"
  holds "$1: a repeated insert is in the table once" 2 "$admin" 'SELECT count() FROM clicks'
  holds "$1: a repeated insert is in the rollup once" 2 "$admin" 'SELECT sum(clicks) FROM partner_daily'
  ask "$admin" "$(clicks second)" >/dev/null
  holds "$1: an insert of its own counts in the rollup" 4 "$admin" 'SELECT sum(clicks) FROM partner_daily'
}

rows="SELECT arrayStringConcat(arraySort(groupUniqArray(workspace_id)), ',') FROM"

check_roles() {
  local name
  holds 'ctl migrate makes the three roles' 3 "$admin" "SELECT count() FROM system.roles WHERE name IN ('partners_reader', 'partners_writer', 'partners_every_workspace')"
  must 'users and roles of workspaces can be made' "$admin" "CREATE ROLE partners_workspace_${run}_acme"
  ask "$admin" "CREATE ROLE partners_workspace_${run}_globex" >/dev/null
  for name in acme globex nobody writer service; do ask "$admin" "CREATE USER ${run}_$name IDENTIFIED BY '$secret'" >/dev/null; done
  must 'roles can be granted' "$admin" "GRANT partners_writer TO ${run}_writer"
  ask "$admin" "GRANT partners_every_workspace TO ${run}_service" >/dev/null
  for name in acme globex; do ask "$admin" "GRANT partners_reader, partners_workspace_${run}_$name TO ${run}_$name" >/dev/null; done
  ask "$admin" "GRANT partners_reader TO ${run}_nobody" >/dev/null

  must 'partners_writer inserts' "${run}_writer" "$(clicks by_the_writer)"
  must 'partners_writer changes tables' "${run}_writer" "ALTER TABLE clicks DELETE WHERE src_offset = 1000000"
  must 'partners_writer sees what runs' "${run}_writer" 'SELECT count() FROM system.processes'
  holds 'partners_writer sees every workspace' "${run}_acme,${run}_globex" "${run}_writer" "$rows clicks"
  holds 'partners_every_workspace sees every workspace' "${run}_acme,${run}_globex" "${run}_service" "$rows clicks"
  refused 'partners_every_workspace writes nothing' "${run}_service" "$(clicks x)"
  for name in acme globex; do
    holds "the reader of $name sees its rows of a table alone" "${run}_$name" "${run}_$name" "$rows clicks"
    holds "the reader of $name sees its rows through a view alone" "${run}_$name" "${run}_$name" "$rows partner_daily"
  done
  holds 'a reader without a workspace sees no row' '' "${run}_nobody" "$rows clicks"
  refused 'a reader writes nothing' "${run}_acme" "$(clicks x)"
  refused 'a reader makes no table' "${run}_acme" 'CREATE TABLE x (k UInt8) ENGINE = Memory'
  ask "$admin" "SELECT name FROM system.tables WHERE database = '$db' AND engine = 'MaterializedView' FORMAT TSVRaw" > "$views" || : > "$views"
  if [ ! -s "$views" ]; then no 'a reader does not see behind the policies' 'there are no materialized views'; fi
  while read -r name; do refused "a reader does not see $name, which has no policy" "${run}_acme" "SELECT count() FROM $name"; done < "$views"
}
views=$(mktemp)
trap 'remove; rm -f "$views"' EXIT

db=system
if ! version=$(ask "$admin" 'SELECT version()'); then no 'the server answers' "$version"; exit 1; fi
if [ "${version%%.*}" -lt 24 ]; then no 'the server is not older than ClickHouse 24' "it is $version"; exit 1; fi
yes "the server answers: ClickHouse $version"

login=$admin${password:+:$password}
for engine in $engines; do
  if [ "$engine" = mergetree ]; then
    db=$run
    migrate 'the native protocol: ctl migrate works over it' "clickhouse://$login@$native/$db" mergetree
    holds 'the native protocol: the tables are there' 1 "$admin" "SELECT count() FROM system.tables WHERE database = '$db' AND name = 'clicks'"
    db=${run}_http
    migrate 'the HTTP protocol: ctl migrate works over it' "${url%%://*}://$login@${url#*://}/$db" mergetree
    deduplicates mergetree
    check_roles
  else
    db=${run}_replicated
    migrate 'replicated: ctl migrate works' "${url%%://*}://$login@${url#*://}/$db" replicated
    holds 'replicated: every table with rows is' 0 "$admin" "SELECT count() FROM system.tables WHERE database = '$db' AND engine LIKE '%MergeTree' AND engine NOT LIKE 'Replicated%' AND engine NOT LIKE 'Shared%' AND name NOT LIKE 'goose%'"
    deduplicates replicated
  fi
done
exit $failed
