/** Shapes of the data and of the page, for the type checker alone: nothing here runs. */

export type Lens = "steering" | "total" | "diffusion" | "ablation";

/** Data of a whole run; `page_meta` in `report/content.py` writes it. */
export interface Meta {
  /** Identifier of the run in addresses; null if it has none. */
  run: string | null;
  layers: number;
  heads: number;
  /** Rows and columns of patches. */
  grid: [number, number];
  firstPatch: number;
  tokens: number;
  /** Names of the lenses of this run, in the order of the page. */
  lenses: Partial<Record<Lens, string>>;
  words: Record<string, string>;
  /** Strength of the run, `rho=1` or `s=40`. */
  strength: string;
  seeds: number[];
  /** Share of all controls that a head must beat for the strong mark. */
  strong: number;
  /** True if only some sites were decoded. */
  selection: boolean;
  /** True if the run steers heads by the Steering Lens, even if it decoded none of them. */
  steers?: boolean;
  /** Heads in a row of best heads. */
  k: number;
  sequential: string[];
  diverging: string[];
  scales: Record<string, [number, number]>;
  pictures: InputName[];
  /** On a server: features of open autoencoders by name, and neurons of each layer, which can all be chosen. */
  openUnits?: { features: Record<string, number>; neurons: number[] } | null;
  /** On a server: every head is ablated when the map is to show it. */
  ablatesHeads?: boolean;
}

export interface InputName {
  id: string;
  name: string;
  /** Address of the input's own page, on a site that has a page for each. */
  page?: string;
}

/** Data of one input; `picture_data` in `report/content.py` writes it. */
export interface InputData {
  id: string;
  name: string;
  note: string;
  size: [number, number];
  /** Address of the picture. */
  input: string;
  /** Address of the picture as the encoder saw it. */
  view: string;
  /** Left, top, width and height of the encoder's view, as shares of the picture's sides; null if not known. */
  seen: [number, number, number, number] | null;
  target: string;
  targetSimilarity: number | null;
  sentences: string[];
  counts: Counts | null;
  clean: Cell[];
  /** By text form of the site, `head.3.1`. Has no prototype, since keys come from addresses too. */
  sites: Record<string, Site>;
  /** Heads by lens, best first. */
  top: Partial<Record<Lens, string[]>>;
  layerLabels: Label[][];
  embedLabels: Label[];
  /** L x H, layer by layer. */
  writeNorms: (number | null)[];
  direct: (number | null)[];
  undecoded: (number | null)[] | null;
  /** Effect of each head's ablation on the embedding, 1 - cosine; null in a run without total effects of heads. */
  withoutHead?: (number | null)[] | null;
  /** On a server: scales that follow the target, in place of the run's; heads in the order of their scores before decoding. */
  scales?: Record<string, [number, number]>;
  ranking?: string[];
  /** L x H x T 16-bit numbers in base64, or the address of the same bytes. */
  attention: string | null;
  /** Features and neurons, in the order of the plan; none in most runs. */
  units?: Unit[];
  /** Cards of the best heads; none in most runs. */
  cards?: Cards | null;
  /** On a site: addresses of the small pages of the best heads, by text form of the head. */
  shared?: Record<string, string>;
  /** Pictures of the run that the page does not hold. */
  leftOut: number;
}

/** A feature or a neuron on one input; `unit_data` in `report/units.py` writes it. */
export interface Unit {
  /** Text form of the site. */
  key: string;
  /** Name of its autoencoder, or "neurons". */
  group: string;
  /** On the readout token; null for the error and the bias of an autoencoder. */
  activation: number | null;
  effect: number | null;
  similarity: number | null;
  /** Effects of a neuron through later attention, of both together, and of real ablation; null where not measured. */
  second: number | null;
  together: number | null;
  ablated: number | null;
  /** Shares of `peak` on every patch, as 16-bit numbers in base64; null where no token holds it. */
  map: string | null;
  peak: number | null;
}

/** Cards of heads on one input; `card_data` in `report/cards.py` writes it. */
export interface Cards {
  strength: string;
  /** Origin of the real pictures, in words. */
  bank: string;
  model: string;
  /** What was not measured on the model, as a sentence; empty if all was. */
  missing: string;
  /** By text form of the head: the card, or the address of its file on a site. */
  heads: Record<string, HeadCard | string>;
}

export interface HeadCard {
  /** What the input gains along the head's write, and what it loses. */
  ends: CardEnd[];
  /** What is measured, over all heads, of this head, and the measure. */
  faithful: [of: string, figure: string, own: string, measure: string][];
}

export interface CardEnd {
  decoded: CardPicture;
  real: CardPicture[];
  /** Texts, and whether each is better than chance. */
  names: [text: string, out: boolean][];
}

export interface CardPicture {
  src: string;
  name: string;
  value: number;
}

export interface Counts {
  lens: string;
  beats: number;
  heads: number;
  chance: number | null;
  strong: number | null;
  strongChance: number | null;
}

export type Label = [name: string, score: number | null];

/** A decoded picture. */
export interface Cell {
  src: string | null;
  seed: number;
  draw: number;
  similarity: number | null;
  fidelity: number | null;
  /** Name of the input whose write steered it, for foils. */
  of?: string;
}

/** Scores and pictures of a site under one lens. */
export interface Score {
  similarity: number | null;
  steered: number | null;
  fidelity: number | null;
  agreement: number | null;
  rho: number | null;
  directCosine: number | null;
  changeCosine: number | null;
  control: number | null;
  beats: boolean | null;
  strong: boolean;
  share: number | null;
  foil: number | null;
  beatsFoil: boolean | null;
  pictures: Cell[];
  controls: Cell[];
  foils: Cell[];
}

export interface Site extends Partial<Record<Lens, Score>> {
  label: string;
  kind: string;
  layer: number;
  head: number;
  labels: Label[];
  /** True if the labels are texts that add up to the site, not the nearest ones. */
  decomposed?: boolean;
}

/** What is on view: everything that an address states. `core/address.js` reads and writes it. */
export interface View {
  /** Id of the input. */
  input: string | null;
  /** Text form of the chosen component; null if none was chosen. */
  component: string | null;
  /** What the map shows; null for the default of the input. */
  map: string | null;
  show: "colours" | "pictures";
  /** "values" where the colours of the map run over its own values alone; null for the run's scale. */
  scale: string | null;
  /** Strength, `rho=1` or `s=3`; null for that of the run. */
  strength: string | null;
  /** Seed of the pictures in rows and maps; null for the run's first. */
  seed: number | null;
  /** Target of similarities; null for that of the run. */
  target: string | null;
  /** Pinned views, each an address without its `#`. */
  pins: string[];
  /** On a server: the model; null for the first. */
  model: string | null;
  /** On a server: the lens of the picture beside the map; null for the Steering Lens. */
  lens: string | null;
  /** On a server: members of a group that is steered as one, separated by commas; null for the component alone. */
  group: string | null;
  /** On a server: painted patches, separated by commas, from which heads read; null for the whole picture. */
  patches: string | null;
  /** On a server: sites that are taken out of the forward pass, separated by commas. */
  without: string | null;
  /** On a server: denoising steps and guidance; null for the model's own. */
  steps: string | null;
  guidance: string | null;
  /** On a server: the autoencoder, or `neurons.LAYER`, whose strongest units are listed; null for the default. */
  list: string | null;
  /** On a server: "beside" where a random control stands beside the picture; else null. */
  control: string | null;
}

/** How a change of the view enters the history of the browser: "push" for a deliberate step that Back undoes, "replace"
 * for one of a stream of changes (a slider that moves, arrow keys), "none" for what came from the address. */
export type History = "push" | "replace" | "none";

export interface Store {
  readonly view: Readonly<View>;
  set(change: Partial<View>, history?: History): void;
  /** Calls `react` after a change of any of the keys; returns a function that ends it. */
  watch(keys: (keyof View)[], react: (view: Readonly<View>, history: History) => void): () => void;
}

/** Where data comes from. `sources/embedded.js` reads the page itself, `sources/files.js` files beside it. A live source
 * adds methods of its own, which live renderers call. */
export interface Source {
  kind: "embedded" | "files" | "live";
  meta(): Promise<Meta>;
  /** Data of an input; the signal ends a request that is no longer wanted. */
  input(id: string, signal: AbortSignal): Promise<InputData>;
  /** The same at once, where the data is inside the page, as printing needs it. */
  inputNow?(id: string): InputData;
  /** The card of a head by its address, where cards are in files of their own. */
  card?(address: string): Promise<HeadCard>;
  /** Bytes of the attention of an input. */
  attention(data: InputData, signal: AbortSignal): Promise<DataView | null>;
}

/** The page that renderers draw on. */
export interface Page {
  readonly meta: Meta;
  readonly source: Source;
  readonly store: Store;
  /** Data of the input on view. */
  readonly data: InputData;
  /** True where the panel of the chosen component stands beside the page and not over it. */
  readonly wide: boolean;
  /** The component whose panel is open, which on a wide page is the best head if none was chosen; null if closed. */
  readonly component: string | null;
  readonly seed: number;
  /** Chooses a component. `focus`: by hand, so that the panel on a narrow page takes the focus. */
  choose(component: string | null, how?: { history?: History; focus?: boolean }): void;
  /** Replaces the data of the input on view, after new results, and draws it. */
  update(data: InputData): void;
  /** Draws another input without changing the view or the address, for printing. */
  preview(data: InputData): void;
  /** Calls `draw` now and after a change of any key of the view, or of the data ("data"). */
  draw(keys: (keyof View | "data")[], draw: () => void): void;
  /** Puts a text where screen readers announce it. */
  say(text: string): void;
}

/** Draws a part of the page: called once, it subscribes to what it draws from with `page.draw`. */
export type Renderer = (page: Page) => void;
