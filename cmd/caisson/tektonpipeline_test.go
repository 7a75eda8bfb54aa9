package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	tektonv1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"sigs.k8s.io/yaml"

	"caisson/cmd/caisson/internal/tekton"
)

// cmdPipeline runs the Tasks of the Pipeline one after the other, as Tekton does,
// until one fails, and leaves the Pipeline's results in results:
//
//	pipeline CODE NAME=VALUE...
func cmdPipeline(ts *testscript.TestScript, _ bool, args []string) {
	var text strings.Builder
	ts.Check(tekton.Print(&text, "pipeline", tekton.Options{Image: "quay.io/example/caisson@sha256:" + strings.Repeat("1", 64)}))
	var p tektonv1.Pipeline
	ts.Check(yaml.UnmarshalStrict([]byte(text.String()), &p))
	known := map[string]string{}
	for name, value := range paramValues(ts, p.Spec.Params, args[1:]) {
		known["params."+name] = value
	}
	expand := func(s string) string {
		return referenceRE.ReplaceAllStringFunc(s, func(ref string) string {
			value, ok := known[ref[2:len(ref)-1]]
			if !ok {
				ts.Fatalf("%s is not known", ref)
			}
			return value
		})
	}
	for _, task := range p.Spec.Tasks {
		var params []string
		for _, param := range task.Params {
			params = append(params, param.Name+"="+expand(param.Value.StringVal))
		}
		code, last := newTaskRun(ts, &task.TaskSpec.TaskSpec, params).runAll()
		if code != 0 {
			finishRun(ts, args[0], code, task.Name+" "+last)
			return
		}
		for _, result := range task.TaskSpec.Results {
			at, value := "tasks."+task.Name+".results."+result.Name, ts.ReadFile(filepath.Join("results", result.Name))
			known[at] = value
			if result.Type == tektonv1.ResultsTypeObject {
				object := map[string]string{}
				ts.Check(json.Unmarshal([]byte(value), &object))
				for key, v := range object {
					known[at+"."+key] = v
				}
			}
		}
	}
	finishRun(ts, args[0], 0, "")
	ts.Check(os.RemoveAll(ts.MkAbs("results")))
	ts.Check(os.Mkdir(ts.MkAbs("results"), 0o755))
	for _, result := range p.Spec.Results {
		value := expand(result.Value.StringVal)
		for key, v := range result.Value.ObjectVal {
			value += key + "=" + expand(v) + "\n"
		}
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("results"), result.Name), []byte(value), 0o644))
	}
}

// referenceRE is what Tekton puts a value for.
var referenceRE = regexp.MustCompile(`\$\([a-zA-Z0-9._-]+\)`)
