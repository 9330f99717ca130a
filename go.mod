module github.com/nimriz/partners

go 1.26.0

require (
	github.com/ClickHouse/ch-go v0.74.0 // block compression and columns of ClickHouse's protocol
	github.com/ClickHouse/clickhouse-go/v2 v2.50.0 // the ClickHouse client
	github.com/DataDog/zstd v1.5.7 // pipeline/state/zstd: what Pebble calls of it, without C
	github.com/adhocore/gronx v1.20.4 // cron expressions of export's schedule
	github.com/cockroachdb/datadriven v1.0.3 // tests as scripts
	github.com/cockroachdb/pebble/v2 v2.1.7 // journeys on disk
	github.com/compose-spec/compose-go/v2 v2.16.2 // tests hold the composition against the official Compose schema, which it carries
	github.com/ebitengine/purego v0.11.3 // binding to libchdb without cgo
	github.com/getkin/kin-openapi v0.153.0 // tests hold the gateway and the report against their OpenAPI documents
	github.com/go-json-experiment/json v1.27.2 // strict JSON: duplicate and unknown names refused, exact numbers
	github.com/goccy/go-yaml v1.19.2 // strict YAML with line and column in errors
	github.com/gofrs/flock v0.13.2 // one process per state, spool and cache directory
	github.com/google/go-cmp v0.7.0 // readable differences in tests
	github.com/google/renameio/v2 v2.0.2 // files that are there whole or not at all
	github.com/grafana/grafana-foundation-sdk/go v0.0.22 // tests hold the dashboards against Grafana's own types
	github.com/hashicorp/golang-lru/v2 v2.0.7 // bounded caches of User-Agents and of networks' rate limiters
	github.com/jedib0t/go-pretty/v6 v6.8.3 // tables on a terminal
	github.com/klauspost/compress v1.20.3 // s2 blocks of the click log
	github.com/linkedin/goavro/v2 v2.15.0 // the reference Avro codec
	github.com/oschwald/maxminddb-golang/v2 v2.9.0 // country of a visitor
	github.com/parquet-go/parquet-go v0.32.0 // exports as Parquet
	github.com/pierrec/lz4/v4 v4.1.33 // LZ4 frames, as clients of the embedded ClickHouse send and accept them
	github.com/pires/go-proxyproto v0.15.0 // the PROXY protocol, versions 1 and 2, as trusted proxies speak it
	github.com/pressly/goose/v3 v3.29.0 // ClickHouse migrations
	github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring v0.95.2 // tests hold ServiceMonitor and PrometheusRule against the operator's own types
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/rogpeppe/go-internal v1.16.0 // testscript: commands as scripts
	github.com/segmentio/ksuid v1.0.4 // click tokens
	github.com/shopspring/decimal v1.5.0 // exact decimal numbers: sums of money, claimed amounts
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1 // the reference that tests hold our signatures against
	github.com/twmb/avro v1.9.0 // Avro on hot paths: the same bytes as goavro, without maps
	github.com/twmb/franz-go v1.22.2 // the Kafka client
	github.com/twmb/franz-go/pkg/kadm v1.19.0 // topics, offsets, transactions of the cluster
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c // the embedded broker, and a fake server in tests
	github.com/twmb/franz-go/pkg/kmsg v1.15.0 // offsets in transactional commits
	github.com/twmb/franz-go/pkg/sr v1.8.0 // publishing schemas to a registry
	github.com/twmb/franz-go/plugin/kprom v1.5.0 // Kafka client metrics
	github.com/twmb/franz-go/plugin/kslog v1.0.0 // Kafka client logs
	github.com/ua-parser/uap-go v0.0.0-20260529044130-17c35e68e58c // device, browser and crawler of a visitor
	golang.org/x/net v0.62.0 // the xn-- form of hosts, in what the catalog answers
	golang.org/x/sync v0.24.0 // groups of goroutines: queries of one answer, the demo's traffic
	golang.org/x/text v0.43.0 // the composed form (NFC) and the folding of slugs
	golang.org/x/time v0.16.0 // rate limits
	k8s.io/api v0.37.2 // tests hold the manifests against Kubernetes' own types
	k8s.io/apimachinery v0.37.2 // label selectors, as Kubernetes reads them, in the same tests
	pgregory.net/rapid v1.3.0 // properties against trivial models
	sigs.k8s.io/json v0.0.0-20250730193827-2d320260d730 // the API server's strict decoder: unknown, doubled and wrongly spelled names refused
	sigs.k8s.io/kustomize/api v0.21.2 // tests render the overlays as kubectl does
	sigs.k8s.io/kustomize/kyaml v0.21.2 // the file system that kustomize's library reads from
)

// Pebble imports this one when cgo is on: 40 files of C, more than a minute of CPU in the first build, for a compression that our state does not use.
replace github.com/DataDog/zstd => ./pipeline/state/zstd

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/RaduBerinde/axisds v0.1.0 // indirect
	github.com/RaduBerinde/btreemap v0.0.0-20250419174037-3d62b7205d54 // indirect
	github.com/andybalholm/brotli v1.2.6 // indirect
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/blang/semver/v4 v4.0.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cockroachdb/crlib v0.0.0-20241112164430-1264a2edc35b // indirect
	github.com/cockroachdb/errors v1.11.3 // indirect
	github.com/cockroachdb/logtags v0.0.0-20230118201751-21c54148d20b // indirect
	github.com/cockroachdb/redact v1.1.5 // indirect
	github.com/cockroachdb/swiss v0.0.0-20260820225851-333444432258 // indirect
	github.com/cockroachdb/tokenbucket v0.0.0-20230807174530-cc333fc44b06 // indirect
	github.com/fxamacker/cbor/v2 v2.9.3 // indirect
	github.com/getsentry/sentry-go v0.27.0 // indirect
	github.com/go-errors/errors v1.5.1 // indirect
	github.com/go-faster/city v1.0.1 // indirect
	github.com/go-faster/errors v0.8.0 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-openapi/jsonpointer v1.0.0 // indirect
	github.com/go-openapi/jsonreference v1.0.0 // indirect
	github.com/go-openapi/swag v0.27.1 // indirect
	github.com/go-openapi/swag/cmdutils v0.27.1 // indirect
	github.com/go-openapi/swag/conv v0.27.1 // indirect
	github.com/go-openapi/swag/fileutils v0.27.1 // indirect
	github.com/go-openapi/swag/jsonutils v0.27.1 // indirect
	github.com/go-openapi/swag/loading v0.27.1 // indirect
	github.com/go-openapi/swag/mangling v0.27.1 // indirect
	github.com/go-openapi/swag/netutils v0.27.1 // indirect
	github.com/go-openapi/swag/pools v0.27.1 // indirect
	github.com/go-openapi/swag/stringutils v0.27.1 // indirect
	github.com/go-openapi/swag/typeutils v0.27.1 // indirect
	github.com/go-openapi/swag/yamlutils v0.27.1 // indirect
	github.com/gogo/protobuf v1.3.2 // indirect
	github.com/golang/snappy v0.0.5-0.20231225225746-43d5d4cd4e0e // indirect
	github.com/google/gnostic-models v0.7.1 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/kr/pretty v0.3.1 // indirect
	github.com/kr/text v0.2.0 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/mfridman/interpolate v0.0.2 // indirect
	github.com/minio/minlz v1.0.1-0.20250507153514-87eb42fe8882 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.3-0.20250322232337-35a7c28c31ee // indirect
	github.com/monochromegane/go-gitignore v0.0.0-20200626010858-205db1a8cc00 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/parquet-go/bitpack v1.0.0 // indirect
	github.com/parquet-go/jsonlite v1.0.0 // indirect
	github.com/paulmach/orb v0.13.0 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/pmezard/go-difflib v1.0.1-0.20181226105442-5d4384ee4fb2 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3 // indirect
	github.com/segmentio/asm v1.2.1 // indirect
	github.com/sethvargo/go-retry v0.5.0 // indirect
	github.com/twpayne/go-geom v1.6.1 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	github.com/xlab/treeprint v1.2.0 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v2 v2.4.4 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	go.yaml.in/yaml/v4 v4.0.0 // indirect
	golang.org/x/exp v0.0.0-20261011100332-faecfb24eb49 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
	gopkg.in/evanphx/json-patch.v4 v4.13.0 // indirect
	gopkg.in/inf.v0 v0.9.1 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
	honnef.co/go/tools v0.8.2 // indirect
	k8s.io/klog/v2 v2.140.0 // indirect
	k8s.io/kube-openapi v0.0.0-20260821135717-be32def86098 // indirect
	k8s.io/utils v0.0.0-20261023123148-ca04ba58ecab // indirect
	sigs.k8s.io/randfill v1.0.0 // indirect
	sigs.k8s.io/structured-merge-diff/v6 v6.4.2 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)

tool honnef.co/go/tools/cmd/staticcheck
