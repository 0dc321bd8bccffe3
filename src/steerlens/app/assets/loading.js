// Says how far the models are opened, and opens the page when they are there. The address keeps its view.
const STAGES = {
  libraries: "Importing the libraries",
  models: "Opening the model",
  "first picture": "Reading the first picture",
};

function failed(message) {
  document.title = "The explorer did not open · steerlens";
  document.querySelector("h1").textContent = "The explorer did not open";
  document.getElementById("progress").remove();
  const stage = document.getElementById("stage");
  stage.textContent = message[0].toUpperCase() + message.slice(1);
  stage.className = "notice";
}

async function look() {
  try {
    const state = await (await fetch("/api/state")).json();
    document.getElementById("progress").value = state.done;
    document.getElementById("stage").textContent = `${STAGES[state.stage] ?? state.stage}, ${Math.round(state.seconds)} s`;
    if (state.ready) return location.reload();
    if (state.error) return failed(state.error);
  } catch {
    document.getElementById("stage").textContent = "The server does not answer. Is the command still running?";
  }
  setTimeout(look, 120);
}

void look();
