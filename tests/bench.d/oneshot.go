// A stand-in for a plugin without an agent: a process a mount, with a TLS connection of its own and two
// calls to Vault, in Go's standard library. It checks nothing and renews nothing; what the first plugin
// did beside that is left out, to its advantage.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

func must(err error) {
	if err != nil {
		fmt.Printf("{\"status\":\"Failure\",\"message\":%q}\n", err.Error())
		os.Exit(1)
	}
}

func call(client *http.Client, path string, body any, answer any) {
	text, err := json.Marshal(body)
	must(err)
	request, err := http.NewRequest("POST", os.Getenv("VAULT_ADDR")+"/v1/"+path, bytes.NewReader(text))
	must(err)
	request.Header.Set("X-Vault-Token", os.Getenv("VAULT_TOKEN"))
	if path != "auth/token/renew-self" {
		request.Header.Set("X-Vault-Wrap-TTL", "300")
	}
	reply, err := client.Do(request)
	must(err)
	defer reply.Body.Close()
	content, err := io.ReadAll(reply.Body)
	must(err)
	if reply.StatusCode != 200 {
		must(fmt.Errorf("%s: %s", path, content))
	}
	must(json.Unmarshal(content, answer))
}

func main() {
	if len(os.Args) != 4 || os.Args[1] != "mount" {
		os.Exit(64)
	}
	directory := os.Args[2]
	var options map[string]string
	must(json.Unmarshal([]byte(os.Args[3]), &options))
	authority, err := os.ReadFile(os.Getenv("VAULT_CACERT"))
	must(err)
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}

	var ignored map[string]any
	call(client, "auth/token/renew-self", map[string]any{}, &ignored)
	var created struct {
		WrapInfo struct {
			Token           string `json:"token"`
			TTL             int    `json:"ttl"`
			CreationTime    string `json:"creation_time"`
			WrappedAccessor string `json:"wrapped_accessor"`
		} `json:"wrap_info"`
	}
	meta := map[string]string{"poduid": options["kubernetes.io/pod.uid"]}
	call(client, "auth/token/create/applications",
		map[string]any{"policies": []string{options["vault/policies"]}, "meta": meta}, &created)

	must(syscall.Mount("tmpfs", directory, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "size=64k,mode=0755"))
	must(os.WriteFile(filepath.Join(directory, "vault-token"), []byte(created.WrapInfo.Token), 0o644))
	content, err := json.Marshal(created.WrapInfo)
	must(err)
	must(os.WriteFile(filepath.Join(directory, "vault-token.json"), content, 0o644))
	fmt.Println(`{"status":"Success"}`)
}
