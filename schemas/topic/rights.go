package topic

import "strings"

// Resource is a kind of thing in Kafka that rights are given on.
type Resource string

// The resources that our programs need rights on, by the names of kafka-acls' flags.
const (
	Topic           Resource = "topic"
	Group           Resource = "group"
	TransactionalID Resource = "transactional-id"
	Cluster         Resource = "cluster"
)

// Operation is something that a right allows, by Kafka's name. Read, Write and Alter
// include Describe; AlterConfigs includes DescribeConfigs.
type Operation string

// The operations that our programs need.
const (
	Read            Operation = "Read"
	Write           Operation = "Write"
	Create          Operation = "Create"
	Alter           Operation = "Alter"
	Describe        Operation = "Describe"
	DescribeConfigs Operation = "DescribeConfigs"
	AlterConfigs    Operation = "AlterConfigs"
)

// Right is what a program may do with resources of one kind.
type Right struct {
	Resource   Resource
	Names      []string // without prefix; Kafka's own begin with two underscores
	Prefixed   bool     // for everything whose name begins with one of Names
	Operations []Operation
	// SelfHeal: only so that processors end hanging transactions by themselves. Among
	// these is a right on the cluster.
	SelfHeal bool
}

// Grant is one operation on one resource of an installation.
type Grant struct {
	Resource  Resource
	Name      string // in the cluster
	Prefixed  bool
	Operation Operation
	SelfHeal  bool
}

// ClusterName is how Kafka names its only resource of the kind Cluster.
const ClusterName = "kafka-cluster"

// Programs are the programs that speak Kafka, in the order of the data. report and
// export read ClickHouse only, and need no right.
func Programs() []string { return []string{"redirector", "gateway", "processor", "sink", "ctl"} }

// Rights returns the least that a program needs. Without one of them it says which one
// it lacks.
func Rights(program, groupSuffix string) []Right {
	switch program {
	case "redirector":
		return []Right{
			{Resource: Topic, Names: []string{Catalog}, Operations: []Operation{Read}},
			{Resource: Topic, Names: []string{Clicks}, Operations: []Operation{Write}},
		}
	case "gateway":
		return []Right{
			{Resource: Topic, Names: []string{Catalog}, Operations: []Operation{Read}},
			{Resource: Topic, Names: []string{Clicks}, Operations: []Operation{Describe}}, // its partition count
			{Resource: Topic, Names: []string{Conversions, Rejections}, Operations: []Operation{Write}},
		}
	case "processor":
		return processorRights()
	case "sink":
		return []Right{
			{Resource: Topic, Names: []string{Catalog, Clicks, Conversions, Outcomes, Progress, Rejections},
				Operations: []Operation{Read}},
			// Read: a repeated batch looks for the letters that it wrote before.
			{Resource: Topic, Names: []string{DeadLetters}, Operations: []Operation{Read, Write}},
			{Resource: Group, Names: []string{SuffixedSinkGroup(groupSuffix)}, Operations: []Operation{Read}},
		}
	case "ctl":
		groups := []string{ProcessorGroup, SinkGroup}
		if groupSuffix != "" {
			groups = append(groups, SuffixedSinkGroup(groupSuffix))
		}
		return []Right{
			// Write: the catalog, dead letters that are sent again, and those of records
			// that no sink has got to when ClickHouse is repaired.
			{Resource: Topic, Names: []string{Catalog, Clicks, Conversions, Outcomes, Rejections, DeadLetters},
				Operations: []Operation{Create, AlterConfigs, Read, Write}},
			{Resource: Topic, Names: []string{Progress}, Operations: []Operation{Create, AlterConfigs, Read}},
			{Resource: Topic, Names: []string{Changelog}, Operations: []Operation{Create, AlterConfigs}},
			// It adds partitions. To Kafka it includes Describe.
			{Resource: Topic, Names: CoPartitioned(), Operations: []Operation{Alter}},
			{Resource: Group, Names: groups, Operations: []Operation{Read}},
		}
	}
	return nil
}

func processorRights() []Right {
	return []Right{
		{Resource: Topic, Names: []string{Clicks, Conversions}, Operations: []Operation{Read, DescribeConfigs}},
		{Resource: Topic, Names: []string{Catalog}, Operations: []Operation{Read}}, // the partition count
		// Read: a processor looks for transactions that are open in what it writes.
		{Resource: Topic, Names: []string{Changelog, Outcomes, Progress, DeadLetters},
			Operations: []Operation{Read, Write, DescribeConfigs}},
		{Resource: Group, Names: []string{ProcessorGroup}, Operations: []Operation{Read}},
		// A transactional id ends with -instance, and a processor ends the transaction
		// of a slot that died.
		{Resource: TransactionalID, Names: []string{ProcessorGroup + "-"}, Prefixed: true,
			Operations: []Operation{Write}},
		{Resource: Topic, Names: []string{"__consumer_offsets", "__transaction_state"},
			Operations: []Operation{Read}, SelfHeal: true},
		{Resource: Cluster, Names: []string{ClusterName}, Operations: []Operation{Alter}, SelfHeal: true},
	}
}

// Grants lists a program's rights one by one, for an installation's prefix and the suffix
// of a warehouse's group.
func Grants(program, prefix, groupSuffix string) (grants []Grant) {
	for _, r := range Rights(program, groupSuffix) {
		for _, name := range r.FullNames(prefix) {
			for _, operation := range r.Operations {
				grants = append(grants, Grant{r.Resource, name, r.Prefixed, operation, r.SelfHeal})
			}
		}
	}
	return grants
}

// FullNames returns the resources' names in a cluster, for an installation's prefix.
func (r Right) FullNames(prefix string) (names []string) {
	for _, name := range r.Names {
		if r.Resource != Cluster && !strings.HasPrefix(name, "__") {
			name = prefix + name
		}
		names = append(names, name)
	}
	return names
}

// String names a grant as in "Write on topic clicks".
func (g Grant) String() string {
	switch {
	case g.Resource == Cluster:
		return string(g.Operation) + " on the cluster"
	case g.Prefixed:
		return string(g.Operation) + " on every " + string(g.Resource) + " that begins with " + g.Name
	}
	return string(g.Operation) + " on " + string(g.Resource) + " " + g.Name
}
