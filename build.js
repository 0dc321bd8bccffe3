/**
 * Bundles the modules of the page into the scripts that pages embed: `npm run build`. The results are committed, so that
 * the package is built and installed without node; tests compare them with their sources. `--check` writes nothing and
 * names stale bundles.
 */

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { relative } from "node:path";
import { build } from "esbuild";

/** Entry module and bundle. */
export const BUNDLES = [
  ["src/steerlens/report/assets/js/report.js", "src/steerlens/report/assets/report.js"],
  ["src/steerlens/report/assets/js/site.js", "src/steerlens/report/assets/site.js"],
  ["src/steerlens/app/assets/js/live.js", "src/steerlens/app/assets/live.js"],
];

/**
 * @param {string} entry
 * @returns {Promise<string>}
 */
async function bundled(entry) {
  const result = await build({
    entryPoints: [entry], bundle: true, format: "iife", target: "es2022", charset: "utf8", write: false, metafile: true,
    legalComments: "none", logLevel: "warning", minifyWhitespace: true, minifySyntax: true, lineLimit: 200,
  });
  // The hash lets a machine without node see that a bundle is stale: over the sources, in the order of their names.
  const hash = createHash("sha256");
  for (const source of Object.keys(result.metafile.inputs).map((name) => relative(".", name)).sort()) hash.update(await readFile(source));
  const text = result.outputFiles[0].text;
  return `/* Written by "npm run build" from ${entry}; sources ${hash.digest("hex").slice(0, 16)}. */\n${text}`;
}

const check = process.argv.includes("--check");
for (const [entry, target] of BUNDLES) {
  const fresh = await bundled(entry);
  const stored = await readFile(target, "utf8").catch(() => "");
  if (fresh === stored) continue;
  if (check) {
    console.error(`${target} is stale: run npm run build`);
    process.exitCode = 1;
  } else {
    await writeFile(target, fresh);
    console.log(`${target}: ${fresh.length} characters`);
  }
}
