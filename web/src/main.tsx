import { createRoot } from "react-dom/client";
import { App } from "./App";
import "./style/tokens.css";
import "./style/base.css";
import "./style/parts.css";
import "./style/views.css";
import "./style/charts.css";

createRoot(document.getElementById("app")!).render(<App />);
