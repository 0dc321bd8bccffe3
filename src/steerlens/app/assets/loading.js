// How far the opening of the models is; opens the page when they are there. The address keeps its view.
const STAGES = {
  libraries: "Importing the libraries",
  models: "Opening the model",
  "first picture": "Reading the first picture",
};

async function look() {
  try {
    const state = await (await fetch("/api/state")).json();
    document.getElementById("progress").value = state.done;
    document.getElementById("stage").textContent = state.error || `${STAGES[state.stage] ?? state.stage}, ${Math.round(state.seconds)} s`;
    if (state.ready) return location.reload();
    if (state.error) return document.getElementById("progress").remove();
  } catch {
    document.getElementById("stage").textContent = "The server does not answer. Is the command still running?";
  }
  setTimeout(look, 120);
}

void look();
