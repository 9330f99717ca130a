// Package deploy holds what starts the pipeline as containers, with Prometheus and
// Grafana provisioned, and the runbook. It has no code but tests, which hold every
// program, flag, mounted path, job and service name in it against what is in the
// repository. No container engine runs in them.
package deploy
