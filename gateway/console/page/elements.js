// Makes and updates elements. Text only ever becomes text: nothing that the server says is read as HTML.

export function element(tag, { className = "", text = null, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

// Sets what differs only, so that what somebody is selecting or reading stays as it is.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setClass(target, className) {
  if (target.className !== className) target.className = className;
}

// Keeps one child for each item, in the items' order: makes, updates, moves and removes them by key.
export function reconcile(parent, items, keyOf, make, update) {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = present.get(key);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = key;
    }
    present.delete(key);
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of present.values()) child.remove();
}

// Offers choices in a select, keeping what is chosen while it is still there. Returns whether the choice changed.
export function offer(select, choices) {
  const before = select.value;
  const wanted = choices.map(([value, text]) => `${value}\n${text}`).join("\n\n");
  if (select.dataset.offered !== wanted) {
    select.dataset.offered = wanted;
    select.replaceChildren(...choices.map(([value, text]) => element("option", { value, text })));
    if (choices.some(([value]) => value === before)) select.value = before;
  }
  return select.value !== before;
}
