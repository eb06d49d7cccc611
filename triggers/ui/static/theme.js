// Before the page is drawn: the theme that its reader chose, or that of the system.
(() => {
  const chosen = (() => { try { return localStorage.getItem('theme'); } catch { return null; } })();
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
  document.documentElement.classList.add('has-script');
})();
