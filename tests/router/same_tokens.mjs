// Whether scripts are the same to whoever runs them: the same tokens, with the ends of lines at the same places between them.
//
//     node same_tokens.mjs TYPESCRIPT_JS DIRECTORY
//
// For each NAME.js in the directory there is a NAME.js.served. Prints the name of each; fails at the first difference.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [compiler, directory] = process.argv.slice(2);
const { default: ts } = await import(pathToFileURL(compiler).href);

/** All leaves of the syntax tree: kind, text, and whether a line ends before it. */
function leaves(name, text) {
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.ES2022, true, ts.ScriptKind.JS);
  const found = [];
  const visit = (node) => {
    if (node.kind >= ts.SyntaxKind.FirstJSDocNode && node.kind <= ts.SyntaxKind.LastJSDocNode) return;
    const children = node.getChildren(source);
    if (children.length > 0) return children.forEach(visit);
    const before = text.slice(node.pos, node.getStart(source));
    found.push(`${ts.SyntaxKind[node.kind]} ${before.includes("\n")} ${node.getText(source)}`);
  };
  visit(source);
  return found;
}

for (const name of readdirSync(directory).filter((each) => each.endsWith(".js"))) {
  const [written, served] = [name, `${name}.served`].map((each) => leaves(name, readFileSync(join(directory, each), "utf8")));
  const place = written.findIndex((leaf, index) => leaf !== served[index]);
  if (written.length < 50 || written.length !== served.length || place !== -1) {
    console.error(`${name}: ${written[place]} is served as ${served[place]}; ${written.length} and ${served.length} leaves`);
    process.exit(1);
  }
  console.log(name);
}
