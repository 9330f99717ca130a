// Package dashboards holds the Grafana dashboards and the Prometheus alerts. It has no
// code but tests.
//
//   - *.json: dashboards for the official ClickHouse data source and Prometheus. Data
//     sources are variables; every panel has a unit and a description.
//   - alerts/partners.yaml: the rules. alerts/*_test.yaml: when each fires, and that
//     none fires in normal operation. deploy/RUNBOOK.md has a section for each.
//
// The tests run the SQL of every panel on ClickHouse, with the plugin's macros
// expanded, and promtool on the rules. TestMetrics of cmd/demo compares the metrics
// that are named here with those that the processes register.
package dashboards
