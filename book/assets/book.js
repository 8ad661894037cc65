// Two slips of the theme, mended: labels that do not contain their visible name, and a logo that lies
// outside every landmark. The theme makes some controls late, so changes of the page are watched.
(() => {
  const mend = () => {
    document.querySelectorAll(".search-button-field, .search-button, .theme-switch-button, .toggle-details__summary, button.toggle-button").forEach((control) => {
      const text = control.innerText.trim();
      const label = control.getAttribute("aria-label");
      if (label && text && !label.toLowerCase().includes(text.toLowerCase())) control.setAttribute("aria-label", `${text}: ${label}`);
    });
    document.querySelectorAll("summary.toggle-details__summary").forEach((summary) => summary.removeAttribute("aria-label"));
    const sidebar = document.querySelector(".bd-sidebar-primary");
    if (sidebar && !sidebar.hasAttribute("role")) {
      sidebar.setAttribute("role", "navigation");
      sidebar.setAttribute("aria-label", "Chapters");
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    mend();
    new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  });
})();
