package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/nimriz/partners/cmd/internal/daemon"
	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/nimriz/partners/pipeline/token"
	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kgo"
)

// giveUpFlags are the flags of token give-up.
type giveUpFlags struct {
	kafka  kafka.Config
	reason string
	yes    bool
}

func defineGiveUpFlags(fs *flag.FlagSet) func(context.Context, *call) error {
	f := &giveUpFlags{kafka: kafka.DefaultConfig()}
	f.kafka.ClientID = "partners-ctl"
	daemon.KafkaFlags(fs, &f.kafka)
	fs.StringVar(&f.reason, "reason", "", "`text` that is kept with the record: why, and who (required)")
	fs.BoolVar(&f.yes, "yes", false, "give the token up; without it only what is given up is said")
	return f.giveUpToken
}

func (f *giveUpFlags) giveUpToken(ctx context.Context, c *call) error {
	if len(c.args) != 1 {
		return usagef("exactly one TOKEN is required")
	}
	text := c.args[0]
	raw, err := token.Parse(text)
	if err != nil {
		return err
	}
	if strings.TrimSpace(f.reason) == "" {
		return usagef("-reason is required: it is all that a later reader of the ledger learns")
	}
	return withBrokers(ctx, f.kafka, func(ctx context.Context) error {
		install, err := kafka.FollowInstall(f.kafka, c.log)
		if err != nil {
			return err
		}
		defer install.Close()
		if err := install.Await(ctx, time.Now()); err != nil {
			return err
		}
		if install.IsGivenUp(text) {
			c.say("token %s was given up before", text)
			return nil
		}
		where := ""
		if b := install.Binding(); len(b.Epochs) > 0 {
			where = fmt.Sprintf(", partition %d of %d", b.Epochs.Partition(text, token.Time(&raw)),
				b.Epochs.Count(token.Time(&raw)))
		}
		c.say("token %s, minted %s%s", text, token.Time(&raw).Format(time.RFC3339), where)
		c.say("What is given up: every event of it that waits, and every event of it that is judged from now on, " +
			"becomes `unattributed` with the reason `given_up`, and without its click. A refund, cancellation or " +
			"reversal of its sales takes nothing back any more. What was judged before stands as it is. This cannot " +
			"be undone.")
		if !f.yes {
			return errors.New("nothing is changed yet: give -yes to give this token up")
		}
		if err := f.writeGivenUp(ctx, c, text); err != nil {
			return err
		}
		c.say("token %s is given up: start the processors that it has stopped", text)
		return nil
	})
}

func (f *giveUpFlags) writeGivenUp(ctx context.Context, c *call, text string) error {
	value, err := json.Marshal(topic.GivenUp{At: time.Now().UTC(), Reason: f.reason})
	if err != nil {
		return fmt.Errorf("giving up token %s: %w", text, err)
	}
	cl, err := kafka.NewClient(f.kafka, c.log, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	record := &kgo.Record{Topic: f.kafka.Topic(topic.Catalog), Key: []byte(topic.GivenUpPrefix + text), Value: value}
	if err := cl.ProduceSync(ctx, record).FirstErr(); err != nil {
		return fmt.Errorf("giving up token %s: %w", text, err)
	}
	return nil
}
