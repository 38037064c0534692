// Draws what an element's data-chart holds: {x: [Unix seconds], series: [{label, values}], unit}.
// It draws anew when the attribute, the width or the theme changes.
(function () {
  "use strict";

  var COLOURS = {
    light: ["#2563eb", "#237a3b", "#a15c00", "#9333ea", "#0e7490", "#b42318"],
    dark: ["#60a5fa", "#63c47a", "#e4a44b", "#c084fc", "#22d3ee", "#ff7b72"]
  };
  var drawn = new WeakMap();

  function theme() {
    return document.documentElement.getAttribute("data-bs-theme") === "dark" ? "dark" : "light";
  }

  function clock(parts) {
    var format = new Intl.DateTimeFormat("en-GB", Object.assign({ timeZone: "UTC" }, parts));
    return function (seconds) { return format.format(new Date(seconds * 1000)); };
  }
  var DAY = 86400;
  var minutes = clock({ hour: "2-digit", minute: "2-digit" });
  var exactly = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  var day = clock({ day: "numeric", month: "short" });

  var STEPS = [1, 5, 15, 30].concat([1, 5, 10, 30, 60, 180, 360, 720].map(function (each) {
    return each * 60;
  }), [1, 2, 7, 30, 90, 365].map(function (each) { return each * DAY; }));

  // Neighbours must differ: runs of many nights are all at the same hour, those of a minute in it.
  function tick(step) {
    if (step < 60) { return exactly; }
    if (step >= DAY) { return day; }
    return function (seconds) { return (seconds % DAY ? minutes : day)(seconds); };
  }

  function options(host, data) {
    var style = window.getComputedStyle(document.body);
    var ink = style.color;
    var line = window.getComputedStyle(host).getPropertyValue("--bs-border-color");
    var long = data.x[data.x.length - 1] - data.x[0] > DAY;
    function moment(seconds) { return (long ? day(seconds) + ", " : "") + exactly(seconds); }
    function hours(u, moments) {
      return moments.map(tick(moments.length > 1 ? moments[1] - moments[0] : 60));
    }
    var axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    var colours = COLOURS[theme()];
    return {
      width: host.clientWidth,
      height: 168,
      padding: [null, 28, null, null], // half of the last tick stands beside the plot
      tzDate: function (seconds) { return uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"); },
      scales: { y: { range: function (u, low, high) { return [0, Math.max(high * 1.1, 1)]; } } },
      axes: [Object.assign({ values: hours, space: 72, incrs: STEPS }, axis), Object.assign({ size: 56 }, axis)],
      cursor: { y: false },
      legend: { live: true },
      series: [{
        label: "UTC",
        value: function (u, seconds) { return seconds === null ? "–" : moment(seconds); }
      }].concat(data.series.map(function (each, index) {
        return {
          label: each.label,
          stroke: colours[index % colours.length],
          width: 1.75,
          points: { show: false },
          spanGaps: false,
          value: function (u, value) {
            return value === null ? "–" : value.toLocaleString() + (data.unit ? " " + data.unit : "");
          }
        };
      }))
    };
  }

  function draw(host) {
    if (!window.uPlot) { return; }
    var text = host.getAttribute("data-chart");
    var key = text + theme() + host.clientWidth;
    var before = drawn.get(host);
    if (before && before.key === key) { return; }
    var data = JSON.parse(text);
    // One moment makes no line, and axes without any would show times that never were.
    if (data.x.length < 2) {
      if (!before) { host.textContent = "The chart begins with the next figures."; }
      return;
    }
    if (!before) { host.textContent = ""; }
    if (before) { before.plot.destroy(); }
    var columns = [data.x].concat(data.series.map(function (each) { return each.values; }));
    drawn.set(host, { key: key, plot: new uPlot(options(host, data), columns, host) });
  }

  function drawAll() { document.querySelectorAll("[data-chart]").forEach(draw); }

  document.addEventListener("samplemind:renewed", drawAll);
  window.addEventListener("resize", drawAll);
  new MutationObserver(drawAll).observe(document.documentElement, {
    attributes: true, attributeFilter: ["data-bs-theme"]
  });
  drawAll();
}());
