// Reads queries as JSON from stdin; prints what Microsoft's language service for KQL has against each, as JSON.
const fs = require("fs");
const vm = require("vm");

const folder = process.argv[2];
for (const name of ["bridge.min.js", "Kusto.Language.Bridge.min.js"]) {
  vm.runInThisContext(fs.readFileSync(`${folder}/${name}`, "utf8"), { filename: name });
}
const problems = JSON.parse(fs.readFileSync(0, "utf8")).map((query) => {
  const code = Kusto.Language.KustoCode.ParseAndAnalyze(query, Kusto.Language.GlobalState.Default);
  const found = code.GetDiagnostics();
  return Array.from({ length: found.Count }, (_, index) => found.getItem(index)).map(
    (one) => `${one.Message} ${query.slice(one.Start, one.Start + 60)}`,
  );
});
console.log(JSON.stringify(problems));
