package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/nimriz/partners/pipeline/kafka"
)

// checkOffsets refuses inputs in which the group has no committed offset, or one outside
// the log. `ctl topics apply` makes topics, commits the group's start and then records the
// installation: a session that begins in between waits for its end.
func (s *session) checkOffsets(ctx context.Context) error {
	lost := kafka.CheckOffsets(ctx, s.adm, s.kafka, s.engine.install.Install(), s.groupName(),
		[]string{s.leading, s.following})
	if !errors.Is(lost, kafka.ErrOffsets) {
		return lost
	}
	if s.engine.install.Install() != nil {
		// Partitions that were added meanwhile have no committed offset.
		names, coPartitioned := s.topo.topics()
		err := s.checkPartitions(ctx, names[:coPartitioned])
		if errors.Is(err, kafka.ErrPartitions) || errors.Is(err, kafka.ErrGrowing) {
			return err
		}
		return lost
	}
	empty, err := s.areInputsEmpty(ctx)
	if err != nil {
		return err
	}
	if !empty {
		return lost
	}
	return fmt.Errorf("waiting for the end of `ctl topics apply`: the topics are there and empty, but it has not "+
		"recorded the installation, and group %s has no committed offsets: %w", s.groupName(), errSession)
}

// areInputsEmpty reports whether no record was ever written to an input.
func (s *session) areInputsEmpty(ctx context.Context) (bool, error) {
	offsets, err := kafka.ListOffsets(ctx, s.adm, s.leading, s.following)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return false, fmt.Errorf("reading the logs of the inputs: %w", err)
	}
	for _, name := range []string{s.leading, s.following} {
		for _, log := range offsets.Partitions(name) {
			if log.End > 0 {
				return false, nil
			}
		}
	}
	return true, nil
}
