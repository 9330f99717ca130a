// Runs at the end of a page inside a frame and tells the page around it what a person with a keyboard, a screen reader or weak eyes would stumble over.
(() => {
  const wrong = [];
  const say = (what, el) => wrong.push(what + (el ? ': ' + el.outerHTML.replace(/\s+/g, ' ').slice(0, 160) : ''));
  const all = (q) => [...document.querySelectorAll(q)];
  const text = (el) => (el.getAttribute('aria-label') || el.textContent || '').trim();

  if (!document.documentElement.lang) say('no language');
  if (!document.title) say('no title');
  for (const landmark of ['main', ...(document.querySelector('.narrow') ? [] : ['header', 'nav']), 'footer'])
    if (all(landmark).length !== 1) say(all(landmark).length + ' landmarks ' + landmark);
  for (const el of all('nav')) if (!text(el) || !el.getAttribute('aria-label')) say('a navigation without a name', el);
  for (const el of all('body > *')) if (!el.matches('header, main, footer, a.skip, script, style')) say('outside of every landmark', el);
  for (const el of all('section')) if (el.hasAttribute('aria-labelledby') && !document.getElementById(el.getAttribute('aria-labelledby'))) say('a name that is nowhere', el);
  const skip = document.querySelector('a.skip');
  if (!skip || !document.querySelector(skip.getAttribute('href'))) say('no link that skips to the content');

  let level = 0;
  for (const h of all('h1, h2, h3, h4, h5, h6')) {
    const n = +h.tagName[1];
    if (n > level + 1) say('a heading that skips a level', h);
    if (!text(h)) say('an empty heading', h);
    level = n;
  }
  if (all('h1').length !== 1) say(all('h1').length + ' headings h1');

  for (const el of all('input, select, textarea')) if (el.type !== 'hidden' && ![...el.labels].some(text) && !el.getAttribute('aria-label')) say('a field without a label', el);
  for (const el of all('button, a[href], summary')) if (!text(el)) say('nothing to say what it does', el);
  for (const el of all('svg')) if (el.getAttribute('aria-hidden') !== 'true' && !(el.getAttribute('role') === 'img' && el.getAttribute('aria-label')) && !el.closest('[aria-hidden=true]')) say('a picture without words', el);
  for (const el of all('th')) if (!el.scope) say('a header of nothing', el);
  for (const el of all('table')) if (!el.querySelector('thead th')) say('a table without headers', el);
  for (const el of all('[tabindex]')) if (+el.getAttribute('tabindex') > 0) say('an order of its own', el);
  const ids = all('[id]').map((el) => el.id);
  for (const id of new Set(ids)) if (ids.filter((x) => x === id).length > 1) say('an id twice: ' + id);

  // Contrast as WCAG 2.2 defines it, 4.5 and for large text 3, over the colours that are painted behind a text.
  const parse = (c) => { const n = c.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const luminance = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  for (let node; (node = walk.nextNode());) {
    const el = node.parentElement;
    const box = document.createRange();
    box.selectNodeContents(node);
    const rect = box.getBoundingClientRect();
    if (!node.data.trim() || el.closest('script, style, option, svg') || !rect.width || rect.right < 0) continue;
    texts++;
    const style = getComputedStyle(el);
    const chain = [];
    for (let e = el; e; e = e.parentElement) chain.unshift(e);
    let behind = [255, 255, 255, 1];
    let opacity = 1;
    for (const e of chain) { const s = getComputedStyle(e); behind = over(parse(s.backgroundColor), behind); opacity *= +s.opacity; }
    const ink = parse(style.color);
    ink[3] *= opacity;
    const [a, b] = [luminance(over(ink, behind)), luminance(behind)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) say('contrast ' + ratio.toFixed(2) + ' of “' + node.data.trim().slice(0, 30) + '”', el);
  }
  if (texts < 5) say('only ' + texts + ' texts were looked at');

  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) {
    say('the page is ' + wide + ' px wider than its window');
    for (const el of all('main *')) if (el.getBoundingClientRect().right > innerWidth + 1 && !el.closest('.scroll')) { say('it sticks out', el); break; }
  }
  // A page ends on a phone: its lists have pages, and fold.
  const most = 10000;
  if (innerWidth < 720 && document.documentElement.scrollHeight > most) say('the page is ' + document.documentElement.scrollHeight + ' px tall on a phone, of ' + most);
  for (const el of all('.scroll')) if (innerWidth < 720 && el.scrollWidth > el.clientWidth && !el.closest('details')) say('a table to scroll sideways on a phone', el);

  const said = { page: document.title, width: innerWidth, dark: matchMedia('(prefers-color-scheme: dark)').matches, wrong: [...new Set(wrong)] };
  parent.document.getElementById('said').append(JSON.stringify(said).replace(/[<>&]/g, ' ') + '\n');
})();
