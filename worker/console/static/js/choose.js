// Ticking many lines at once; the buttons that act on them wait until one is ticked.
(function () {
  "use strict";

  function renew(form) {
    var boxes = Array.from(form.querySelectorAll("input[data-choice]"));
    var chosen = boxes.filter(function (box) { return box.checked; });
    var all = form.querySelector("input[data-choose-all]");
    var count = form.querySelector("[data-chosen]");
    if (all) {
      all.checked = boxes.length > 0 && chosen.length === boxes.length;
      all.indeterminate = chosen.length > 0 && chosen.length < boxes.length;
    }
    if (count) { count.textContent = chosen.length + " selected"; }
    form.querySelectorAll("button[data-needs-choice]").forEach(function (button) {
      button.disabled = chosen.length === 0;
    });
  }

  function renewAll() { document.querySelectorAll("form[data-choices]").forEach(renew); }

  document.addEventListener("change", function (event) {
    var form = event.target.closest("form[data-choices]");
    if (!form) { return; }
    if (event.target.hasAttribute("data-choose-all")) {
      form.querySelectorAll("input[data-choice]").forEach(function (box) {
        box.checked = event.target.checked;
      });
    }
    renew(form);
  });
  document.addEventListener("samplemind:renewed", renewAll);
  renewAll();
}());
