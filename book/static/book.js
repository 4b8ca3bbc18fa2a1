// What the theme leaves out for readers who do not see the page.
addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav summary")) {
    const page = summary.closest("li")?.querySelector("a")?.textContent.trim();
    summary.setAttribute("aria-label", `Pages below ${page}`);
  }
  for (const list of document.querySelectorAll(".citation-list")) {
    list.removeAttribute("role"); // its entries are no list items
  }
});
