package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/schemas/topic"
)

// aclFlags are the flags of `topics acls`.
type aclFlags struct {
	kafka    kafka.Config
	prefix   string // of the principals
	selfHeal bool   // with the rights that only healing needs
	apply    bool   // make the ACLs, not only print them
}

// clusterWarning is said wherever the right on the cluster is given.
const clusterWarning = "Alter on the cluster includes making ACLs: whoever has this user's secret has the " +
	"whole cluster."

func defineACLFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	a := &aclFlags{kafka: kafka.DefaultConfig()}
	a.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &a.kafka)
	daemon.GroupSuffixFlag(fs, &a.kafka)
	fs.StringVar(&a.prefix, "principal-prefix", "", "`text` before the program's name in each principal: with "+
		"partners- the sink is User:partners-sink (required)")
	fs.BoolVar(&a.selfHeal, "self-heal", false, "also the rights by which processors end hanging transactions without "+
		"a person. One is Alter on the cluster, which includes making ACLs: whoever has the processor's secret has "+
		"the whole cluster")
	fs.BoolVar(&a.apply, "apply", false, "make the ACLs, as a user who may; without it nothing is changed")
	return a.giveRights
}

func (a *aclFlags) giveRights(ctx context.Context, c *call) error {
	if a.prefix == "" {
		return usagef("-principal-prefix: missing; with partners- the sink is User:partners-sink")
	}
	if strings.ContainsAny(a.prefix+a.kafka.TopicPrefix, "'\n") {
		return usagef("-principal-prefix, -topic-prefix: no quote and no line break is allowed")
	}
	if err := a.kafka.ValidateGroupSuffix(); err != nil { // the brokers may be missing here
		return usageError{err}
	}
	if !a.apply {
		return a.printCommands(c)
	}
	return withBrokers(ctx, a.kafka, func(ctx context.Context) error {
		cl, err := kafka.NewClient(a.kafka, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return err
		}
		defer cl.Close()
		for _, program := range topic.Programs() {
			grants := a.grantsOf(program)
			if err := kafka.ApplyRights(ctx, cl, a.principal(program), grants); err != nil {
				return err
			}
			for _, g := range grants {
				c.say("%s: %s", a.principal(program), g)
				if g.Resource == topic.Cluster {
					c.say("%s", clusterWarning)
				}
			}
		}
		return nil
	})
}

func (a *aclFlags) principal(program string) string { return "User:" + a.prefix + program }

func (a *aclFlags) grantsOf(program string) []topic.Grant {
	return slices.DeleteFunc(a.kafka.Grants(program), func(g topic.Grant) bool {
		return g.SelfHeal && !a.selfHeal
	})
}

// printCommands prints the rights as commands of Kafka's own tool.
func (a *aclFlags) printCommands(c *call) error {
	brokers := "$BROKERS"
	if len(a.kafka.Brokers) > 0 {
		brokers = strings.Join(a.kafka.Brokers, ",")
	}
	c.say("# The least rights of each program. report and export need none: they do not use Kafka.")
	for _, program := range topic.Programs() {
		c.say("# %s", program)
		for _, r := range topic.Rights(program, a.kafka.GroupSuffix) {
			if r.SelfHeal && !a.selfHeal {
				continue
			}
			if r.Resource == topic.Cluster {
				c.say("# %s", clusterWarning)
			}
			c.say("kafka-acls --bootstrap-server %s --command-config admin.properties --add --allow-principal '%s'%s",
				brokers, a.principal(program), aclArguments(r, a.kafka.TopicPrefix))
		}
	}
	if !a.selfHeal {
		c.say("# With -self-heal processors also get the rights to end hanging transactions without a person.")
	}
	return nil
}

// aclArguments are the operations and resources of a right, as flags of kafka-acls.
func aclArguments(r topic.Right, prefix string) (text string) {
	for _, operation := range r.Operations {
		text += fmt.Sprintf(" --operation %s", operation)
	}
	for _, name := range r.FullNames(prefix) {
		if r.Resource == topic.Cluster {
			return text + " --cluster"
		}
		text += fmt.Sprintf(" --%s '%s'", r.Resource, name)
	}
	if r.Prefixed {
		text += " --resource-pattern-type prefixed"
	}
	return text
}
