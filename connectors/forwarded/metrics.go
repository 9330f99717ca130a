package forwarded

import "github.com/prometheus/client_golang/prometheus"

// connectionResult is what became of a connection: a value of the label result.
type connectionResult int

const (
	directConnection connectionResult = iota
	believedConnection
	refusedConnection
	connectionResults // their number
)

// String returns the value of the label result.
func (c connectionResult) String() string {
	return [connectionResults]string{"direct", "believed", "refused"}[c]
}

// registerMetrics makes the counters and registers them with reg, unless reg is nil. It
// creates all label values: increase() misses the first increment of a new series.
func (p *Proxies) registerMetrics(reg prometheus.Registerer) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "partners_forwarded_requests_total",
		Help: "Requests by what their client's address is based on.",
	}, []string{"result"})
	connections := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "partners_proxy_protocol_connections_total",
		Help: "Connections by whether they began with a header of the PROXY protocol that was believed.",
	}, []string{"result"})
	for b := range bases {
		p.requests[b] = requests.WithLabelValues(b.String())
	}
	for c := range connectionResults {
		p.connections[c] = connections.WithLabelValues(c.String())
	}
	if reg != nil {
		reg.MustRegister(requests)
		if p.cfg.ProxyProtocol {
			reg.MustRegister(connections)
		}
	}
}
