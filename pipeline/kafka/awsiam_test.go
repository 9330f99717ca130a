package kafka_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nimriz/partners/pipeline/kafka"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// With AWS_MSK_IAM a login is signed with the credentials that the file has at that
// moment, and what is wrong with the file is one sentence without a secret.
func TestAWSIAM(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1")
	cluster, _ := startFake(t, kfake.EnableSASL())
	var sent map[string]string // by the newest login
	refuse := false
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
		resp.SupportedMechanisms = []string{req.(*kmsg.SASLHandshakeRequest).Mechanism}
		return resp, nil, true
	})
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if err := json.Unmarshal(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes, &sent); err != nil {
			t.Error(err)
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.SASLAuthBytes = []byte("{}")
		if refuse {
			resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		}
		return resp, nil, true
	})
	file := filepath.Join(t.TempDir(), "credentials")
	login := func(credentials string) error {
		t.Helper()
		sent = nil
		if err := os.WriteFile(file, []byte(credentials), 0o600); err != nil {
			t.Fatal(err)
		}
		return ping(t, cluster.ListenAddrs()[0], kafka.Security{Mechanism: kafka.AWSIAM, AWSCredentialsFile: file,
			Insecure: true})
	}
	refused := func(credentials, want string) {
		t.Helper()
		if err := login(credentials); err == nil || !strings.Contains(err.Error(), "-kafka-aws-credentials-file") ||
			!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: got %v, want …%s…", credentials, err, want)
		}
	}
	for _, key := range []string{"AKIA1", "AKIA2"} {
		_ = login(`{"Version": 1, "AccessKeyId": "` + key + `", "SecretAccessKey": "hidden", "SessionToken": "of a role",
			"Expiration": "2099-01-01T00:00:00+00:00"}`)
		if !strings.HasPrefix(sent["x-amz-credential"], key+"/") || sent["x-amz-security-token"] != "of a role" ||
			!strings.HasSuffix(sent["x-amz-credential"], "/eu-central-1/kafka-cluster/aws4_request") ||
			len(sent["x-amz-signature"]) != 64 {
			t.Errorf("the login of %s is %v", key, sent)
		}
	}
	refused(`{"AccessKeyId": "AKIA", "SecretAccessKey": "hidden", "Expiration": "2020-01-01T00:00:00Z"}`,
		"have expired at 2020-01-01T00:00:00Z")
	refused(`{"AccessKeyId": "AKIA"}`, "lacks AccessKeyId or SecretAccessKey")
	refused("hidden", "is not the JSON")
	refused("", "is empty")
	refuse = true
	refused(`{"AccessKeyId": "AKIA", "SecretAccessKey": "hidden"}`, "the broker refuses the login")
}
