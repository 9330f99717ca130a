// Package deploy holds a composition that starts the pipeline as containers, with
// Prometheus and Grafana provisioned, the same for Kubernetes, and the pages for
// operators. It has no code but tests, which compare every program, flag, mounted path,
// job and service name with the repository. They need no container engine and no cluster.
package deploy
