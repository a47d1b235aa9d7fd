import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Built beside the server, which reads the files once and gives them under a policy without inline script.
export default defineConfig({
  plugins: [react()],
  build: {
    outDir: "../palate/serving/web",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8000", changeOrigin: true, headers: { origin: "http://127.0.0.1:8000" } } } },
});
