// Checks rendered manifests against published schemas: Kubernetes' own kinds, Istio's (1.29) and the Prometheus operator's.
// Usage: node check.mjs FILE.yaml...
//
// Twice, since each sees what the other does not: the JSON schemas of the CRDs know ranges, patterns and enums, but let unknown fields pass, as the API
// server drops them in silence; the types made from the same schemas know every field by name.
import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const PACKAGES = {
  "networking.istio.io": "@kubernetes-models/istio",
  "security.istio.io": "@kubernetes-models/istio",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

let failures = 0;
let count = 0;

function fail(what, why) {
  failures += 1;
  console.error(`${what}: ${why}`);
}

async function validate(what, module, object) {
  const { [object.kind]: Model } = await import(module);
  try {
    new Model(object).validate();
  } catch (error) {
    fail(what, error.message);
  }
}

function checkTypes(objects) {
  const source = objects.map(({ module, object, what }, index) =>
    `import type { I${object.kind} as T${index} } from "${module}";\n` +
    `// ${what}\nexport const o${index}: T${index} = ${JSON.stringify(object)};\n`);
  const file = "objects.ts";
  writeFileSync(file, source.join(""));
  const program = ts.createProgram([file], {
    noEmit: true, strict: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, types: [],
  });
  for (const { start, messageText, file: at } of ts.getPreEmitDiagnostics(program)) {
    const line = at === undefined ? 0 : at.getLineAndCharacterOfPosition(start).line;
    // Three lines an object, the second of which names it.
    const { what } = objects[Math.floor(line / 3)] ?? { what: "types" };
    fail(what, ts.flattenDiagnosticMessageText(messageText, "\n  "));
  }
}

const objects = [];
for (const file of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    if (document.errors.length > 0) {
      fail(file, document.errors.join("; "));
      continue;
    }
    const object = document.toJS();
    const group = object.apiVersion.includes("/") ? object.apiVersion.split("/")[0] : "";
    const module = `${PACKAGES[group] ?? "kubernetes-models"}/${object.apiVersion}/${object.kind}`;
    const what = `${basename(file)}: ${object.kind} ${object.metadata.name}`;
    await validate(what, module, object);
    objects.push({ what, module, object });
    count += 1;
  }
}
checkTypes(objects);
if (count === 0) fail("manifests", "there were none");
const kinds = [...new Set(objects.map(({ object }) => `${object.apiVersion} ${object.kind}`))].sort();
console.log(`${count} objects of ${kinds.length} kinds, ${failures} wrong: ${kinds.join(", ")}`);
process.exit(failures === 0 ? 0 : 1);
