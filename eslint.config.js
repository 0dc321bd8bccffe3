import js from "@eslint/js";
import globals from "globals";

const strict = {
  "no-unused-vars": ["error", { argsIgnorePattern: "^_", args: "after-used" }],
  eqeqeq: "error",
  "no-var": "error",
  "prefer-const": "error",
  "no-eval": "error",
  "no-implied-eval": "error",
  "max-lines": ["error", 400],
  "no-restricted-properties": ["error",
    { property: "innerHTML", message: "text enters the page as text: use el()" },
    { property: "outerHTML", message: "text enters the page as text: use el()" },
    { property: "insertAdjacentHTML", message: "text enters the page as text: use el()" }],
};

export default [
  // Bundles, which `npm run build` writes, and plain scripts of other pages.
  { ignores: ["src/steerlens/**/assets/*.js", "**/*.d.ts"] },
  js.configs.recommended,
  { files: ["src/**/*.js"], languageOptions: { globals: globals.browser }, rules: strict },
  { files: ["tests/js/**/*.js", "build.js"], languageOptions: { globals: globals.node }, rules: strict },
];
