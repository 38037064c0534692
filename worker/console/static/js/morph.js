// Takes over from a newer page only what differs, so that focus, selection, scroll positions and
// whatever was typed or ticked stay as they are.
(function () {
  "use strict";

  var KEPT = { open: true, value: true, checked: true };

  function keyOf(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) { return null; }
    // Not node.id: a field that is named id would stand for its form's.
    return node.getAttribute("id") || node.getAttribute("data-key");
  }

  function takeAttributes(from, to) {
    Array.from(from.attributes).forEach(function (attribute) {
      if (!KEPT[attribute.name] && !to.hasAttribute(attribute.name)) {
        from.removeAttribute(attribute.name);
      }
    });
    Array.from(to.attributes).forEach(function (attribute) {
      if (!KEPT[attribute.name] && from.getAttribute(attribute.name) !== attribute.value) {
        from.setAttribute(attribute.name, attribute.value);
      }
    });
  }

  function fits(from, to) {
    return from.nodeType === to.nodeType && from.nodeName === to.nodeName && keyOf(from) === keyOf(to);
  }

  function takeChildren(from, to) {
    var keyed = new Map();
    Array.from(from.childNodes).forEach(function (child) {
      var key = keyOf(child);
      if (key) { keyed.set(key, child); }
    });
    var at = from.firstChild;
    Array.from(to.childNodes).forEach(function (wanted) {
      var key = keyOf(wanted);
      var found = key ? keyed.get(key) : null;
      if (found && fits(found, wanted)) {
        if (found === at) { at = at.nextSibling; } else { from.insertBefore(found, at); }
        morph(found, wanted);
      } else if (!key && at && fits(at, wanted)) {
        found = at;
        at = at.nextSibling;
        morph(found, wanted);
      } else {
        from.insertBefore(document.importNode(wanted, true), at);
      }
    });
    while (at) {
      var next = at.nextSibling;
      from.removeChild(at);
      at = next;
    }
  }

  function morph(from, to) {
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) { from.nodeValue = to.nodeValue; }
      return;
    }
    takeAttributes(from, to);
    // A chart draws its own inside from its attribute.
    if (!from.hasAttribute("data-chart")) { takeChildren(from, to); }
  }

  window.samplemindMorph = morph;
}());
