package dashboards

import (
	"os"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	grafana "github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Grafana's own types accept every dashboard with the options of each kind of panel: no
// unknown field, no wrong type, no value that its schema forbids.
func TestGrafanaReadsThem(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	for file, want := range loadDashboards(t) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		//lint:ignore SA1019 the form of Grafana 10 and 11; the newer one is only for its API of 12
		var d grafana.Dashboard
		// the library returns an empty list of errors as an error
		if err := d.UnmarshalJSONStrict(b); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", file, err)
		}
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if len(d.Panels) != len(want.Panels) {
			t.Errorf("%s: Grafana sees %d panels of %d", file, len(d.Panels), len(want.Panels))
		}
	}
}
