package kafka

import (
	"encoding/json"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
)

// awsCredentials are what `aws configure export-credentials` prints, and what a
// credential_process of AWS's own tools does.
type awsCredentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	SessionToken    string    `json:"SessionToken"` // of a role; empty for a user's own key
	Expiration      time.Time `json:"Expiration"`   // zero: never
}

// newAWSMechanism makes the mechanism of a file's credentials. The region is in the
// brokers' names, or else in AWS_REGION.
func newAWSMechanism(file, content string) (sasl.Mechanism, error) {
	var c awsCredentials
	if err := json.Unmarshal([]byte(content), &c); err != nil {
		return nil, accessErrorf("-kafka-aws-credentials-file: %s is not the JSON that `aws configure "+
			"export-credentials` prints", file) // the error would show a part of it
	}
	switch {
	case c.AccessKeyID == "" || c.SecretAccessKey == "":
		return nil, accessErrorf("-kafka-aws-credentials-file: %s lacks AccessKeyId or SecretAccessKey", file)
	case !c.Expiration.IsZero() && time.Now().After(c.Expiration):
		return nil, accessErrorf("-kafka-aws-credentials-file: the credentials in %s have expired at %s", file,
			c.Expiration.UTC().Format(time.RFC3339))
	}
	return aws.Auth{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey,
		SessionToken: c.SessionToken}.AsManagedStreamingIAMMechanism(), nil
}
