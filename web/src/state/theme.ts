import { useEffect, useState } from "react";

type Theme = "auto" | "light" | "dark";
const ORDER: Theme[] = ["auto", "light", "dark"];
const KEY = "palate-theme";

function kept(): Theme {
  const found = localStorage.getItem(KEY) as Theme | null;
  return found && ORDER.includes(found) ? found : "auto";
}

/** Light, dark, or what the system says; remembered on this machine. */
export function useTheme(): { theme: Theme; next: () => void } {
  const [theme, setTheme] = useState<Theme>(kept);
  useEffect(() => {
    localStorage.setItem(KEY, theme);
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }, [theme]);
  return { theme, next: () => setTheme((now) => ORDER[(ORDER.indexOf(now) + 1) % ORDER.length]!) };
}
