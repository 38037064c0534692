// Fetches the page again every few seconds while somebody can see it, and takes over what differs.
(function () {
  "use strict";

  var region = document.querySelector("[data-live]");
  var status = document.querySelector("[data-live-status]");
  if (!region || !status) { return; }

  var text = status.querySelector("[data-live-text]");
  var toggle = status.querySelector("[data-live-toggle]");
  var dialog = document.getElementById("ask");
  var seconds = Number(region.getAttribute("data-live"));
  var paused = false;
  var timer = null;
  var renewedAt = Date.now();

  function say(words, lost) {
    status.classList.toggle("is-lost", lost);
    status.classList.toggle("is-paused", paused);
    if (text.textContent !== words) { text.textContent = words; }
  }

  function wait() {
    window.clearTimeout(timer);
    if (!paused && !document.hidden) { timer = window.setTimeout(renew, seconds * 1000); }
  }

  function renew() {
    if (paused || document.hidden || (dialog && dialog.open)) { wait(); return; }
    var limit = new AbortController();
    var alarm = window.setTimeout(function () { limit.abort(); }, 15000);
    fetch(window.location.href, { headers: { "X-Live": "1" }, signal: limit.signal })
      .then(function (answer) {
        if (!answer.ok) { throw new Error("status " + answer.status); }
        return answer.text();
      })
      .then(function (page) {
        var fresh = new DOMParser().parseFromString(page, "text/html").getElementById("live");
        if (!fresh) { throw new Error("another page"); }
        if (!(dialog && dialog.open) && !paused) { window.samplemindMorph(region, fresh); }
        document.dispatchEvent(new CustomEvent("samplemind:renewed"));
        renewedAt = Date.now();
        say("Live", false);
      })
      .catch(function () {
        say("Not renewed for " + Math.round((Date.now() - renewedAt) / 1000) + " s", true);
      })
      .finally(function () { window.clearTimeout(alarm); wait(); });
  }

  toggle.addEventListener("click", function () {
    paused = !paused;
    toggle.setAttribute("aria-pressed", paused ? "true" : "false");
    toggle.textContent = paused ? "Resume updates" : "Pause updates";
    say(paused ? "Paused" : "Live", false);
    if (!paused) { renew(); }
  });

  document.addEventListener("visibilitychange", function () {
    if (document.hidden) { window.clearTimeout(timer); } else { renew(); }
  });

  status.hidden = false;
  wait();
}());
