// Slips of the theme, mended: labels that hide the words one sees, a logo outside every landmark, and
// wide tables that a keyboard cannot scroll. The theme makes some controls late, so the page is watched.
(() => {
  const mend = () => {
    document.querySelectorAll("summary[aria-label], .search-button-field[aria-label]").forEach((control) => control.removeAttribute("aria-label"));
    document.querySelectorAll(".theme-switch-button svg[role]").forEach((icon) => {
      icon.querySelector("title")?.remove();
      icon.removeAttribute("role");
      icon.removeAttribute("aria-labelledby");
      icon.setAttribute("aria-hidden", "true");
    });
    const sidebar = document.querySelector(".bd-sidebar-primary");
    if (sidebar && !sidebar.hasAttribute("role")) {
      sidebar.setAttribute("role", "navigation");
      sidebar.setAttribute("aria-label", "Chapters");
    }
  };
  const reach = () => {
    document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article mjx-container").forEach((wide) => {
      if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    });
  };
  // Votes on the claims: kept in this browser, looked up again by the scoreboard.
  const vote = () => {
    const votes = JSON.parse(localStorage.getItem("votes") || "{}");
    document.querySelectorAll(".votes .sd-card").forEach((card, number) => {
      const row = document.createElement("div");
      row.className = "vote";
      for (const [value, words] of [["yes", "I would bet on it"], ["no", "I would not"]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = words;
        button.setAttribute("aria-pressed", String(votes[number + 1] === value));
        button.addEventListener("click", () => {
          votes[number + 1] = value;
          localStorage.setItem("votes", JSON.stringify(votes));
          row.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
        });
        row.append(button);
      }
      card.append(row);
    });
    const board = document.getElementById("your-votes");
    if (board) {
      const lines = Object.entries(JSON.parse(board.dataset.verdicts)).filter(([number]) => votes[number]);
      lines.forEach(([number, [claim, verdict]]) => {
        const line = document.createElement("li");
        line.textContent = `${claim} You ${votes[number] === "yes" ? "would have bet on it" : "would not have bet on it"}; verdict: ${verdict}.`;
        board.append(line);
      });
      board.hidden = !lines.length;
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    mend();
    vote();
    new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  });
  ["load", "resize"].forEach((moment) => window.addEventListener(moment, reach));
})();
