// Slips of the theme, mended: labels that hide the words one sees, a logo outside every landmark, and
// wide tables that a keyboard cannot scroll. The theme makes some controls late, so the page is watched.
(() => {
  const script = document.currentScript.src;
  const mend = () => {
    document.querySelectorAll("summary[aria-label]:not(:has(> .toctree-toggle)), .search-button-field[aria-label]").forEach((control) => control.removeAttribute("aria-label"));
    document.querySelectorAll("summary:has(> .toctree-toggle):not([aria-label])").forEach((control) => {
      control.setAttribute("aria-label", `Pages below ${control.closest("li").querySelector("a").textContent.trim()}`);
    });
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
    document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article mjx-container, .bd-article .cell_output").forEach((wide) => {
      if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
    });
  };
  // Votes on the claims: kept in this browser, looked up again by the scoreboard. A browser may refuse to keep
  // anything; then they last as long as the page.
  const kept = () => {
    try {
      return JSON.parse(localStorage.getItem("votes") || "{}");
    } catch {
      return {};
    }
  };
  const keep = (votes) => {
    try {
      localStorage.setItem("votes", JSON.stringify(votes));
    } catch {}
  };
  const vote = () => {
    const votes = kept();
    document.querySelectorAll(".votes .sd-card").forEach((card, number) => {
      const row = document.createElement("div");
      row.className = "vote";
      row.setAttribute("role", "group");
      row.setAttribute("aria-label", (card.querySelector(".sd-card-title") ?? card).textContent.trim());
      for (const [value, words] of [["yes", "I would bet on it"], ["no", "I would not"]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = words;
        button.setAttribute("aria-pressed", String(votes[number + 1] === value));
        button.addEventListener("click", () => {
          votes[number + 1] = votes[number + 1] === value ? undefined : value; // a second click takes it back
          keep(votes);
          row.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === button && votes[number + 1] === value)));
        });
        row.append(button);
      }
      card.append(row);
    });
  };
  // Votes met again, in <div class="votes-revealed"></div>: beside each the claims behind its card.
  const reveal = async (place) => {
    const add = (parent, tag, text = "") => parent.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
    const votes = kept();
    place.replaceChildren();
    if (location.protocol === "file:") return add(place, "p", "A page opened from a folder cannot show your votes. Serve the book: python -m http.server -d _build/html");
    let [cards, claims] = [];
    try {
      ({ cards, claims } = await (await fetch(new URL("verdicts.json", script))).json());
    } catch {
      return add(place, "p", "What came of the claims could not be loaded. Load the page again to try once more.");
    }
    const voted = cards.map((card, n) => ({ ...card, vote: votes[n + 1] })).filter((card) => card.vote);
    if (!voted.length) {
      const asked = add(place, "p", "You have not voted yet. Eight claims wait in ");
      add(asked, "a", "The report in five minutes").href = new URL("../book/report-2020.html", script);
      return asked.append(".");
    }
    for (const card of voted) {
      add(add(place, "p"), "strong", card.title).after(card.vote === "yes" ? ": you would bet on it." : ": you would not bet on it.");
      const lines = add(place, "ul");
      for (const claim of claims.filter((each) => card.claims.includes(each.id))) {
        const line = add(lines, "li", `${claim.text} `);
        Object.assign(add(line, "span", claim.verdict), { className: "verdict" });
        line.dataset.verdict = claim.verdict;
        if (claim.ambiguous) add(line, "small", ` ${claim.ambiguous}`);
      }
    }
    const behind = (cards) => claims.filter((claim) => cards.some((card) => card.claims.includes(claim.id)));
    const share = (vote) => {
      const counted = behind(voted.filter((card) => card.vote === vote)).filter((claim) => !claim.ambiguous);
      return `${counted.filter((claim) => claim.verdict === "confirmed").length} of ${counted.length}`;
    };
    const apart = behind(voted).filter((claim) => claim.ambiguous).length;
    add(place, "p", `Confirmed, of the claims you would bet on: ${share("yes")}. Of those you would not: ${share("no")}.${apart ? ` Not counted, since the report can be read in more than one way: ${apart}.` : ""}`);
  };
  document.addEventListener("DOMContentLoaded", () => {
    mend();
    vote();
    document.querySelectorAll(".votes-revealed").forEach(reveal);
    new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details.below-input").forEach((each) => { each.open = true; })); // outputs belong on paper
  ["load", "resize"].forEach((moment) => window.addEventListener(moment, reach));
  ["toggle", "click"].forEach((moment) => document.addEventListener(moment, () => requestAnimationFrame(reach), true)); // what was folded
})();
