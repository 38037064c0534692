// Asks before a form with data-ask is sent. Without this script the server asks, on a page.
(function () {
  "use strict";

  var dialog = document.getElementById("ask");
  var notice = document.querySelector("[data-notice]");
  if (notice) { notice.focus({ preventScroll: true }); }
  if (!dialog || !dialog.showModal) { return; }

  var title = dialog.querySelector("h2");
  var detail = dialog.querySelector("[data-ask-detail]");
  var box = dialog.querySelector("[data-ask-reason-box]");
  var reason = dialog.querySelector("[data-ask-reason]");
  var yes = dialog.querySelector("[data-ask-yes]");
  var asked = null;

  function add(form, name, value) {
    var field = document.createElement("input");
    field.type = "hidden";
    field.name = name;
    field.value = value;
    form.appendChild(field);
  }

  function told(form, button, name) {
    var own = button && button.getAttribute(name);
    return own === null || own === undefined ? form.getAttribute(name) : own;
  }

  document.addEventListener("submit", function (event) {
    var form = event.target;
    var button = event.submitter;
    var question = told(form, button, "data-ask");
    if (question === null || form === dialog.querySelector("form")) { return; }
    event.preventDefault();
    asked = { form: form, action: button && button.hasAttribute("formaction") ? button.formAction : form.action };
    var chosen = form.querySelectorAll("input[data-choice]:checked").length;
    title.textContent = question.replace("{jobs}", chosen + (chosen === 1 ? " job" : " jobs"));
    detail.textContent = told(form, button, "data-ask-detail") || "";
    yes.textContent = told(form, button, "data-ask-yes") || "Yes";
    var danger = told(form, button, "data-ask-danger") !== null;
    yes.classList.toggle("btn-danger", danger);
    yes.classList.toggle("btn-primary", !danger);
    var wanted = told(form, button, "data-ask-reason") !== null;
    box.hidden = !wanted;
    reason.required = wanted;
    reason.value = "";
    dialog.returnValue = "";
    dialog.showModal();
    (wanted ? reason : yes).focus();
  });

  dialog.querySelector("[data-ask-no]").addEventListener("click", function () { dialog.close("no"); });

  dialog.addEventListener("close", function () {
    if (dialog.returnValue !== "yes" || !asked) { asked = null; return; }
    var form = asked.form;
    form.action = asked.action;
    add(form, "confirmed", "1");
    if (!box.hidden) { add(form, "reason", reason.value); }
    form.querySelectorAll("button").forEach(function (button) { button.disabled = true; });
    asked = null;
    // A field that is named submit would stand in the way.
    HTMLFormElement.prototype.submit.call(form);
  });
}());
