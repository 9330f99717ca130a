// Package dashboards holds what people look at in Grafana and what Prometheus wakes
// them with. It has no code but tests.
//
//   - *.json: dashboards for the official ClickHouse data source and Prometheus. Data
//     sources are variables; every panel has a unit and a description.
//   - alerts/partners.yaml: rules; alerts/*_test.yaml: what each fires on, and that
//     none fires while all is well. deploy/RUNBOOK.md has a section for each.
//
// The tests run every panel's SQL against ClickHouse with the plugin's macros expanded,
// promtool over the rules, and hold every metric that is named here against those that
// the processes register (cmd/demo: TestMetrics).
package dashboards
