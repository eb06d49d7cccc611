// Refreshes the parts of a page that live on, listens to keys, opens dialogs. Every page works without it.
(() => {
  'use strict';
  // A page that hardly changes, such as that of a job that has ended, says how seldom it is asked for.
  const LEAST_SECONDS = Number(document.querySelector('main')?.dataset.refresh ?? 3);
  const MOST_SECONDS = 60;
  const find = (selector, within = document) => within.querySelector(selector);
  const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
  const remember = (name, value) => { try { localStorage.setItem(name, value); } catch { /* a page without storage works too */ } };

  // --- live: the page asks for itself again, and takes the parts that changed -----------------------------------------
  const live = { isPaused: false, timer: 0 };

  function isBusy() {
    const active = document.activeElement;
    return Boolean(find('dialog[open]')) || (active && active.closest('[data-live]') && active.matches('input:not([type="checkbox"]), select, textarea'))
      || !getSelection().isCollapsed;
  }

  function replace(part, fresh) {
    if (part.innerHTML === fresh.innerHTML) return;
    const wasOpen = new Map(findAll('details[id]', part).map(each => [each.id, each.open]));
    const selected = find('.selected', part)?.id;
    const focused = part.contains(document.activeElement) ? document.activeElement.closest('[id]')?.id : undefined;
    const picked = new Set(findAll('[data-pick]:checked', part).map(each => each.name));
    part.innerHTML = fresh.innerHTML;
    for (const each of findAll('[data-pick]', part)) each.checked = picked.has(each.name);
    showPicked();
    for (const each of findAll('details[id]', part)) if (wasOpen.has(each.id)) each.open = wasOpen.get(each.id);
    if (selected) document.getElementById(selected)?.classList.add('selected');
    if (focused) {
      const again = document.getElementById(focused) ?? part;
      (again.matches('input') ? again : find('a, button', again))?.focus({ preventScroll: true });
    }
  }

  // Each process of the server counts large stages for itself: its page may be of before what is shown.
  function isOlder(fresh) {
    const [known, other] = [document, fresh].map(page => find('main', page)?.dataset.counted);
    if (known && other && Number(other) < Number(known)) return true;
    if (other) find('main').dataset.counted = other;
    else delete find('main').dataset.counted;
    return false;
  }

  async function refresh() {
    const began = performance.now();
    const answer = await fetch(location.href, { headers: { Accept: 'text/html' }, cache: 'no-store' });
    // Nobody is signed in any more: the page that asks for that leads back here.
    if (answer.redirected) location.assign(answer.url);
    if (!answer.ok) throw new Error(`the page answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (!live.isPaused && !isBusy() && !isOlder(fresh)) {
      for (const part of findAll('[data-live]')) {
        const other = find(`[data-live="${CSS.escape(part.dataset.live)}"]`, fresh);
        if (other) replace(part, other);
      }
      // Fresh where a page lives on, and no reason for it to do so.
      for (const part of findAll('[data-live-too]')) {
        const other = find(`[data-live-too="${CSS.escape(part.dataset.liveToo)}"]`, fresh);
        if (other) replace(part, other);
      }
      document.title = fresh.title;
    }
    return (performance.now() - began) / 1000;
  }

  function show(text) {
    const state = find('[data-live-state]');
    if (!state) return;
    state.hidden = false;
    find('[data-live-text]', state).textContent = text;
    find('[data-live-switch]', state).setAttribute('aria-pressed', String(live.isPaused));
  }

  function plan(seconds) {
    clearTimeout(live.timer);
    live.timer = setTimeout(step, seconds * 1000);
  }

  async function step() {
    if (live.isPaused || document.hidden) return;
    if (isBusy()) { plan(LEAST_SECONDS); return; }
    try {
      const took = await refresh();
      show(live.isPaused ? 'paused' : 'live');
      // A slow answer means a busy server: it is asked less often.
      plan(Math.min(MOST_SECONDS, Math.max(LEAST_SECONDS, took * 10)));
    } catch (error) {
      show(`no answer (${error.message}); asks again`);
      plan(10);
    }
  }

  function switchLive() {
    if (!find('[data-live]')) return;
    live.isPaused = !live.isPaused;
    show(live.isPaused ? 'paused' : 'live');
    if (!live.isPaused) step();
  }

  // --- rows: j, k and Enter ------------------------------------------------------------------------------------------
  const rows = () => findAll('[data-row]').filter(row => row.offsetParent !== null);

  function select(change) {
    const all = rows();
    if (!all.length) return;
    const present = all.findIndex(row => row.classList.contains('selected'));
    const next = Math.min(all.length - 1, Math.max(0, present + change));
    all[present]?.classList.remove('selected');
    all[next].classList.add('selected');
    all[next].scrollIntoView({ block: 'nearest' });
    const link = all[next].matches('a') ? all[next] : find('.main-link', all[next]);
    link?.focus({ preventScroll: true });
  }

  function openSelected() {
    const row = find('[data-row].selected');
    if (!row) return false;
    (row.matches('a') ? row : find('.main-link', row))?.click();
    return true;
  }

  // --- the choice of rows: it outlives a refresh ---------------------------------------------------------------------
  function showPicked() {
    const form = find('[data-picks]');
    if (!form) return;
    const all = findAll('[data-pick]', form);
    const count = all.filter(each => each.checked).length;
    find('[data-picked-count]', form).textContent = count;
    const head = find('[data-pick-all]', form);
    if (!head) return;
    head.checked = count > 0 && count === all.length;
    head.indeterminate = count > 0 && count < all.length;
  }

  function pickSelected() {
    const box = find('[data-row].selected [data-pick]');
    if (!box) return;
    box.checked = !box.checked;
    showPicked();
  }

  // --- dialogs, copies, the theme ------------------------------------------------------------------------------------
  function open(id) {
    const dialog = document.getElementById(id);
    if (!dialog || dialog.open) return;
    dialog.showModal();
    (find('input:not([type="hidden"]):not([type="radio"])', dialog) ?? find('button', dialog))?.focus();
  }

  async function copy(button) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add('copied');
    setTimeout(() => button.classList.remove('copied'), 1200);
  }

  function switchTheme() {
    const root = document.documentElement;
    const isDark = (root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
    root.dataset.theme = isDark ? 'light' : 'dark';
    remember('theme', root.dataset.theme);
  }

  document.addEventListener('click', event => {
    const target = event.target.closest('[data-open], [data-close], [data-copy], [data-theme-switch], [data-live-switch], [data-back]');
    if (target) {
      if (target.dataset.open) open(target.dataset.open);
      else if (target.dataset.copy) copy(target).catch(() => prompt('Copy', target.dataset.copy));
      else if ('close' in target.dataset) target.closest('dialog').close();
      else if ('themeSwitch' in target.dataset) switchTheme();
      else if ('liveSwitch' in target.dataset) switchLive();
      else if ('back' in target.dataset) history.back();
      return;
    }
    // The whole row leads where its link leads.
    const row = event.target.closest('tr[data-row]');
    if (row && !event.target.closest('a, button, summary, input, label, .c-pick') && getSelection().isCollapsed) find('.main-link', row)?.click();
  });
  document.addEventListener('change', event => {
    if (event.target.matches('[data-pick-all]')) for (const each of findAll('[data-pick]')) each.checked = event.target.checked;
    if (event.target.matches('[data-pick], [data-pick-all]')) showPicked();
    if (event.target.matches('[data-submit]')) event.target.form.requestSubmit();
    // A choice of a stage means that one.
    if (event.target.matches('select[name="from_stage"]')) find('input', event.target.closest('label')).checked = true;
  });
  // Empty fields do not go into the address; a form is sent once.
  document.addEventListener('submit', event => {
    const form = event.target;
    if (form.method === 'get') for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
    if (form.method === 'post') setTimeout(() => { for (const button of findAll('button', form)) button.disabled = true; });
  });
  addEventListener('pageshow', () => {
    for (const field of findAll('form :disabled')) field.disabled = false;
    showPicked();
  });

  // --- keys ----------------------------------------------------------------------------------------------------------
  const placeOf = key => find(`.nav [data-key="${CSS.escape(key)}"]`);
  let isGoing = false;

  const KEYS = {
    j: () => select(1),
    k: () => select(-1),
    x: pickSelected,
    n: () => find('.tools .primary')?.click(),
    p: switchLive,
    t: switchTheme,
    '?': () => open('help'),
    '/': () => { const field = find('[data-search]'); if (field) { field.focus(); field.select(); } else placeOf('j')?.click(); },
    g: () => { isGoing = true; setTimeout(() => { isGoing = false; }, 1500); },
  };
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || find('dialog[open]')) return;
    if (event.target.matches('input, select, textarea')) {
      if (event.key === 'Escape') event.target.blur();
      return;
    }
    if (isGoing && placeOf(event.key)) { isGoing = false; placeOf(event.key).click(); return; }
    if (event.key === 'Enter' && !event.target.matches('a, button, summary')) { if (openSelected()) event.preventDefault(); return; }
    const act = KEYS[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden && find('[data-live]')) step(); });

  // Tabs and chips may be wider than a phone: the one that is chosen is in view.
  for (const each of findAll('.tabs [aria-current], .chips [aria-current]')) {
    const row = each.parentElement;
    const [place, whole] = [each.getBoundingClientRect(), row.getBoundingClientRect()];
    if (place.right > whole.right) row.scrollLeft = place.left - whole.left - (whole.width - place.width) / 2;
  }
  find('[data-focus]')?.focus();
  if (find('[data-live]')) { show('live'); plan(LEAST_SECONDS); }
})();
