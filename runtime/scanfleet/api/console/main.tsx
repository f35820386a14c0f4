import { render } from "preact";
import { App } from "./app.tsx";
import { keepOpen } from "./live.ts";
import "./console.css";

const root = document.getElementById("console");
if (root) {
  render(<App />, root);
  void keepOpen();
}
