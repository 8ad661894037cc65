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
  document.addEventListener("DOMContentLoaded", () => {
    mend();
    new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  });
  ["load", "resize"].forEach((moment) => window.addEventListener(moment, reach));
})();
