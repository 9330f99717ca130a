// Package deploy holds a composition that starts the pipeline as containers, with
// Prometheus and Grafana provisioned, and the runbook. It has no code but tests, which
// compare every program, flag, mounted path, job and service name with the repository.
// They need no container engine.
package deploy
