/** Shapes of what the server sends, for the type checker alone. */

import type { InputData, Label, Meta, Site, Unit } from "../../../report/assets/js/types";

export interface LiveMeta extends Meta {
  live: {
    model: string;
    models: string[];
    steps: number;
    guidance: number;
    denoises: boolean;
    readsTokens: boolean;
    labels: boolean;
    vectors: string[];
    domain: string;
    /** Inputs of the run whose page this is, and what it compares them with: a text, an input, or each with itself. */
    ofRun: { inputs: string[]; text: string; input: string } | null;
    geometry: boolean;
    writes: boolean;
    uploadBytes: number;
  };
}

/** Similarities before decoding, a cosine for each part of the model. */
export interface Scores {
  heads: (number | null)[][];
  mlps: (number | null)[];
  attention: (number | null)[];
  residual: (number | null)[];
  input: number | null;
}

export interface LiveData extends InputData {
  /** What the listed units belong to, and the run's own units where others are listed. */
  unitsOf?: string;
  ownUnits?: Unit[];
  outside: string;
  scores: Scores | null;
  /** Why there are no scores; empty if there are. */
  unscored: string;
  /** How far the ablation of every head is, or why it is not known; empty at rest. */
  ablating?: string;
}

/** The strongest features of an autoencoder, or neurons of a layer, on an input. */
export interface UnitList {
  units: Unit[];
  sites: Record<string, Site>;
  active: number | null;
  sae: { name: string; words: string; fit: string; poor: boolean } | null;
}

/** A view as the server takes it. */
export type ServerView = Record<string, unknown>;

export interface Numbers {
  site: string;
  label: string;
  undecoded: number | null;
  rho: number | null;
  directCosine: number | null;
  changeCosine: number | null;
  target: string;
  steps: number;
  guidance: number;
  labels: Label[];
}

export interface Shown {
  site: string;
  label: string;
  src: string;
  similarity: number | null;
  undecoded: number | null;
  fidelity: number | null;
  rho: number | null;
  seed: number;
  strength?: string;
}

export interface Ablation {
  sites: string[];
  cosine: number | null;
  change: number | null;
  directCosine: number | null;
  changeCosine: number | null;
  similarityBefore: number | null;
  similarityAfter: number | null;
  labels: { name: string; before: number | null; after: number | null }[];
}
