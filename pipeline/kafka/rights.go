package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nimriz/partners/schemas/topic"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// LackingRights returns those of a program's grants that this client's user lacks, as
// far as the cluster says: of what does not exist yet it says nothing, and of a
// transactional id only whether it may be seen.
func LackingRights(ctx context.Context, cl *kgo.Client, grants []topic.Grant) (lacking []topic.Grant, err error) {
	for _, resource := range []topic.Resource{topic.Topic, topic.Group, topic.TransactionalID, topic.Cluster} {
		var names []string
		for _, g := range grants {
			if g.Resource == resource && !slices.Contains(names, g.Name) {
				names = append(names, g.Name)
			}
		}
		for _, name := range names {
			allowed, err := allowedOperations(ctx, cl, resource, name)
			if err != nil {
				return nil, fmt.Errorf("asking for the rights on %s %s: %w", resource, name, err)
			}
			for _, g := range grants {
				if g.Resource == resource && g.Name == name && !allowed(g.Operation) {
					lacking = append(lacking, g)
				}
			}
		}
	}
	return lacking, nil
}

// allowedOperations asks which operations the user is allowed on a resource. Of what is
// not said, the answer is yes.
func allowedOperations(ctx context.Context, cl *kgo.Client, resource topic.Resource, name string) (
	allowed func(topic.Operation) bool, err error) {
	var bits int32
	switch resource {
	case topic.Topic:
		bits, err = allowedOnTopic(ctx, cl, name)
	case topic.Group:
		bits, err = allowedOnGroup(ctx, cl, name)
	case topic.TransactionalID:
		_, err = kadm.NewClient(cl).DescribeTransactions(ctx, name)
		bits = notSaid
	case topic.Cluster:
		bits, err = allowedOnCluster(ctx, cl)
	}
	switch {
	case LacksRight(err):
		return func(topic.Operation) bool { return false }, nil
	case err != nil:
		return nil, err
	case bits == notSaid:
		return func(topic.Operation) bool { return true }, nil
	}
	have := kadm.DecodeACLOperations(bits)
	return func(want topic.Operation) bool {
		operation, err := kmsg.ParseACLOperation(string(want))
		return err != nil || slices.Contains(have, operation)
	}, nil
}

// notSaid is Kafka's answer where it does not say which operations are allowed.
const notSaid = -1 << 31

func allowedOnTopic(ctx context.Context, cl *kgo.Client, name string) (bits int32, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &name
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	if len(resp.Topics) != 1 {
		return notSaid, nil
	}
	err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return notSaid, nil
	}
	return resp.Topics[0].AuthorizedOperations, err
}

func allowedOnGroup(ctx context.Context, cl *kgo.Client, name string) (bits int32, err error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.IncludeAuthorizedOperations = true
	req.Groups = []string{name}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return 0, err
	}
	if len(resp.Groups) != 1 {
		return notSaid, nil
	}
	err = kerr.ErrorForCode(resp.Groups[0].ErrorCode)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return notSaid, nil
	}
	return resp.Groups[0].AuthorizedOperations, err
}

func allowedOnCluster(ctx context.Context, cl *kgo.Client) (bits int32, err error) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeClusterAuthorizedOperations = true
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, err
	}
	return resp.ClusterAuthorizedOperations, nil
}

// ApplyRights makes an ACL for each grant. One that is there already is no error.
func ApplyRights(ctx context.Context, cl *kgo.Client, principal string, grants []topic.Grant) error {
	req := kmsg.NewPtrCreateACLsRequest()
	for _, g := range grants {
		operation, err := kmsg.ParseACLOperation(string(g.Operation))
		if err != nil {
			return err
		}
		resource, err := kmsg.ParseACLResourceType(string(g.Resource))
		if err != nil {
			return err
		}
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType = resource, g.Name, kmsg.ACLResourcePatternTypeLiteral
		if g.Prefixed {
			c.ResourcePatternType = kmsg.ACLResourcePatternTypePrefixed
		}
		c.Operation, c.Principal, c.Host, c.PermissionType = operation, principal, "*", kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, c)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("giving rights to %s: %w", principal, err)
	}
	for i, result := range resp.Results {
		if err := kerr.ErrorForCode(result.ErrorCode); err != nil {
			if errors.Is(err, kerr.SecurityDisabled) {
				return errors.New("giving rights: the cluster has no authorizer, so everybody may do everything")
			}
			return fmt.Errorf("giving %s %s: %w", principal, grants[i], err)
		}
	}
	return nil
}
